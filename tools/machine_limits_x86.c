/*
 * The limits of x86-64 processors, in assembly: a compiler that sees an array of sums spills it,
 * and one that sees no use for them drops them, which understates a peak several times over.
 *
 * compute   12 sums in registers 0 to 11, each on its own: enough for a latency of 4 (5, 6)
 *           at 2 (2, 2) instructions a cycle. Factors in 12 to 15, loaded from numbers that look
 *           like real ones, since registers that hold zeros draw less power than a kernel's do.
 * tiles     4 sums, two tiles of factors for each side.
 * read      8 loads an iteration; the variants differ in how far ahead they prefetch.
 */
#include "machine_limits.h"

#if defined(__x86_64__)

#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ZMM_BYTES = 64, YMM_BYTES = 32, SUMS = 12, LOADS = 8 };

/* 256 bytes for registers 12 to 15: floats below 1 and not tiny, so that sums do not overflow and
   nothing is denormal. As bf16 and as bytes they are any; those instructions do not mind. */
static const float factors[64] __attribute__((aligned(64))) = {
    0.734512f, -0.513287f, 0.612343f,  0.898123f,  -0.555112f, 0.701234f, -0.823451f, 0.577215f,
    0.943217f, 0.667431f,  -0.71828f,  -0.529177f, 0.602214f,  0.881931f, 0.626070f,  -0.910938f,
    0.667408f, -0.760217f, 0.582934f,  0.939565f,  0.511604f,  0.977812f, -0.835612f, -0.618033f,
    0.707106f, 0.866025f,  0.541196f,  -0.923879f, 0.653281f,  0.831469f, -0.555570f, 0.980785f,
    0.569840f, -0.643215f, 0.773010f,  0.634393f,  -0.881921f, 0.956940f, 0.595699f,  0.514102f,
    0.803207f, 0.740951f,  0.671558f,  -0.989176f, 0.903989f,  0.857728f, -0.427555f, 0.949528f,
    0.685083f, 0.492898f,  -0.612372f, 0.784513f,  0.874619f,  0.965925f, 0.793353f,  -0.608761f,
    0.717356f, 0.846724f,  0.532032f,  0.695553f,  0.998795f,  -0.75624f, 0.613285f,  0.582123f};

#define LOAD(MOVE, R, BYTES)                                                                       \
    MOVE " (%[factors]), %%" R "12\n\t" MOVE " 1*" BYTES "(%[factors]), %%" R "13\n\t" MOVE        \
         " 2*" BYTES "(%[factors]), %%" R "14\n\t" MOVE " 3*" BYTES "(%[factors]), %%" R "15\n\t"
/* Sums begin at zero; exclusive or of an f32 register is an integer instruction that all have. */
#define CLEAR_ONE(XOR, R, I) XOR " %%" R I ", %%" R I ", %%" R I "\n\t"
#define CLEAR(XOR, R)                                                                              \
    CLEAR_ONE(XOR, R, "0")                                                                         \
    CLEAR_ONE(XOR, R, "1")                                                                         \
    CLEAR_ONE(XOR, R, "2")                                                                         \
    CLEAR_ONE(XOR, R, "3")                                                                         \
    CLEAR_ONE(XOR, R, "4")                                                                         \
    CLEAR_ONE(XOR, R, "5")                                                                         \
    CLEAR_ONE(XOR, R, "6")                                                                         \
    CLEAR_ONE(XOR, R, "7")                                                                         \
    CLEAR_ONE(XOR, R, "8") CLEAR_ONE(XOR, R, "9") CLEAR_ONE(XOR, R, "10") CLEAR_ONE(XOR, R, "11")
#define EVEN(OP, R, I) OP " %%" R "13, %%" R "12, %%" R I "\n\t"
#define ODD(OP, R, I) OP " %%" R "15, %%" R "14, %%" R I "\n\t"
#define TWELVE(OP, R)                                                                              \
    EVEN(OP, R, "0")                                                                               \
    ODD(OP, R, "1")                                                                                \
    EVEN(OP, R, "2")                                                                               \
    ODD(OP, R, "3")                                                                                \
    EVEN(OP, R, "4")                                                                               \
    ODD(OP, R, "5")                                                                                \
    EVEN(OP, R, "6")                                                                               \
    ODD(OP, R, "7") EVEN(OP, R, "8") ODD(OP, R, "9") EVEN(OP, R, "10") ODD(OP, R, "11")

#define REGISTERS                                                                                  \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",       \
        "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "cc", "memory"

#define COMPUTE(NAME, TARGET, MOVE, XOR, R, BYTES, BODY)                                           \
    __attribute__((target(TARGET))) static void NAME(uint64_t iterations) {                        \
        __asm__ volatile(LOAD(MOVE, R, BYTES) CLEAR(XOR, R) ".p2align 6\n\t"                       \
                                                            "1:\n\t" BODY "decq %[left]\n\t"       \
                                                            "jnz 1b\n\t"                           \
                                                            "vzeroupper\n\t"                       \
                         : [left] "+r"(iterations)                                                 \
                         : [factors] "r"(factors)                                                  \
                         : REGISTERS);                                                             \
    }

COMPUTE(f32_zmm, "avx512f", "vmovups", "vpxord", "zmm", "64", TWELVE("vfmadd231ps", "zmm"))
COMPUTE(f32_ymm, "avx2,fma", "vmovups", "vpxor", "ymm", "32", TWELVE("vfmadd231ps", "ymm"))
COMPUTE(bf16_zmm, "avx512f,avx512bf16", "vmovups", "vpxord", "zmm", "64",
        TWELVE("vdpbf16ps", "zmm"))
COMPUTE(int8_zmm, "avx512f,avx512vnni", "vmovups", "vpxord", "zmm", "64", TWELVE("vpdpbusd", "zmm"))
COMPUTE(int8_ymm_vnni, "avx2,avxvnni", "vmovups", "vpxor", "ymm", "32",
        TWELVE("%{vex%} vpdpbusd", "ymm"))

/* Where no instruction multiplies bytes into 32-bit sums: pairs into 16 bits, pairs of those
   into 32 bits, and the sum. 8 sums in 0 to 7, what is on its way there in 8 to 11; 15 counts as
   the ones that the middle instruction multiplies by. */
#define PAIRS(SUM, WAY)                                                                            \
    "vpmaddubsw %%ymm13, %%ymm12, %%ymm" WAY "\n\tvpmaddwd %%ymm15, %%ymm" WAY ", %%ymm" WAY       \
    "\n\tvpaddd %%ymm" WAY ", %%ymm" SUM ", %%ymm" SUM "\n\t"
COMPUTE(int8_ymm, "avx2", "vmovups", "vpxor", "ymm", "32",
        PAIRS("0", "8") PAIRS("1", "9") PAIRS("2", "10") PAIRS("3", "11") PAIRS("4", "8")
            PAIRS("5", "9") PAIRS("6", "10") PAIRS("7", "11"))
enum { PAIRED_SUMS = 8 };

/* ---- tiles --------------------------------------------------------------------------- */

/* Eight tiles of 16 rows of 64 bytes; 0 to 3 are sums, which are no fewer than it takes. */
static const struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} eight_tiles = {1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

#define TILE_LOAD(I) "tileloadd (%[factors],%[stride],1), %%tmm" I "\n\t"
/* Rows of factors overlap: 64 bytes each, 8 farther each, so that all are read. */
#define TILES(NAME, TARGET, OP)                                                                    \
    __attribute__((target(TARGET))) static void NAME(uint64_t iterations) {                        \
        __asm__ volatile(                                                                          \
            "ldtilecfg %[tiles]\n\t"                                                               \
            "tilezero %%tmm0\n\ttilezero %%tmm1\n\t"                                               \
            "tilezero %%tmm2\n\ttilezero %%tmm3\n\t" TILE_LOAD("4") TILE_LOAD("5") TILE_LOAD("6")  \
                TILE_LOAD("7") ".p2align 6\n\t"                                                    \
                               "1:\n\t" OP " %%tmm6, %%tmm4, %%tmm0\n\t" OP " %%tmm7, %%tmm4, "    \
                               "%%tmm1\n\t" OP " %%tmm6, %%tmm5, %%tmm2\n\t" OP                    \
                               " %%tmm7, %%tmm5, "                                                 \
                               "%%tmm3\n\tdecq %[left]\n\t"                                        \
                               "jnz 1b\n\t"                                                        \
                               "tilerelease\n\t"                                                   \
            : [left] "+r"(iterations)                                                              \
            : [factors] "r"(factors), [stride] "r"(INT64_C(8)), [tiles] "m"(eight_tiles)           \
            : "cc", "memory");                                                                     \
    }
TILES(bf16_tiles, "amx-tile,amx-bf16", "tdpbf16ps")
TILES(int8_tiles, "amx-tile,amx-int8", "tdpbssd")
enum { TILE_SUMS = 4, TILE_LANES = 16 * 16, TILE_BYTES = 64 };

/* ---- reading ------------------------------------------------------------------------- */

#define READ_LOADS(MOVE, R, BYTES)                                                                 \
    MOVE " (%[at]), %%" R "0\n\t" MOVE " 1*" BYTES "(%[at]), %%" R "1\n\t" MOVE " 2*" BYTES        \
         "(%[at]), %%" R "2\n\t" MOVE " 3*" BYTES "(%[at]), %%" R "3\n\t" MOVE " 4*" BYTES         \
         "(%[at]), %%" R "4\n\t" MOVE " 5*" BYTES "(%[at]), %%" R "5\n\t" MOVE " 6*" BYTES         \
         "(%[at]), %%" R "6\n\t" MOVE " 7*" BYTES "(%[at]), %%" R "7\n\t"
#define AHEAD(DISTANCE) "prefetcht0 " DISTANCE "(%[at])\n\t"
/* Each line of the 512 (256) bytes of an iteration, so far ahead. */
#define AHEAD_4(DISTANCE)                                                                          \
    AHEAD(DISTANCE) AHEAD(DISTANCE "+64") AHEAD(DISTANCE "+128") AHEAD(DISTANCE "+192")
#define AHEAD_8(DISTANCE)                                                                          \
    AHEAD_4(DISTANCE)                                                                              \
    AHEAD(DISTANCE "+256") AHEAD(DISTANCE "+320") AHEAD(DISTANCE "+384") AHEAD(DISTANCE "+448")

#define READ(NAME, TARGET, MOVE, R, BYTES, PREFETCH)                                               \
    __attribute__((target(TARGET))) static void NAME(const void *memory, uint64_t iterations) {    \
        __asm__ volatile(".p2align 6\n\t"                                                          \
                         "1:\n\t" PREFETCH READ_LOADS(MOVE, R, BYTES) "addq $8*" BYTES             \
                                                                      ", %[at]\n\t"                \
                                                                      "decq %[left]\n\t"           \
                                                                      "jnz 1b\n\t"                 \
                                                                      "vzeroupper\n\t"             \
                         : [at] "+r"(memory), [left] "+r"(iterations)                              \
                         :                                                                         \
                         : REGISTERS);                                                             \
    }

READ(read_zmm, "avx512f", "vmovups", "zmm", "64", "")
READ(read_zmm_1k, "avx512f", "vmovups", "zmm", "64", AHEAD_8("1024"))
READ(read_zmm_4k, "avx512f", "vmovups", "zmm", "64", AHEAD_8("4096"))
READ(read_ymm, "avx2", "vmovups", "ymm", "32", "")
READ(read_ymm_1k, "avx2", "vmovups", "ymm", "32", AHEAD_4("1024"))
READ(read_ymm_4k, "avx2", "vmovups", "ymm", "32", AHEAD_4("4096"))

#define AVX512 KRY_CPU_AVX512
#define AVX2 KRY_CPU_AVX2

const struct limit limits_x86[] = {
    {LIMIT_READ, "avx512 loads", AVX512, LOADS *ZMM_BYTES, NULL, read_zmm},
    {LIMIT_READ, "avx512 loads, prefetch 1 KiB", AVX512, LOADS *ZMM_BYTES, NULL, read_zmm_1k},
    {LIMIT_READ, "avx512 loads, prefetch 4 KiB", AVX512, LOADS *ZMM_BYTES, NULL, read_zmm_4k},
    {LIMIT_READ, "avx2 loads", AVX2, LOADS *YMM_BYTES, NULL, read_ymm},
    {LIMIT_READ, "avx2 loads, prefetch 1 KiB", AVX2, LOADS *YMM_BYTES, NULL, read_ymm_1k},
    {LIMIT_READ, "avx2 loads, prefetch 4 KiB", AVX2, LOADS *YMM_BYTES, NULL, read_ymm_4k},
    /* operations: sums x lanes x products of a lane x 2 */
    {LIMIT_F32, "avx512 vfmadd231ps", AVX512, SUMS * 16 * 2, f32_zmm, NULL},
    {LIMIT_F32, "avx2 vfmadd231ps", AVX2, SUMS * 8 * 2, f32_ymm, NULL},
    {LIMIT_BF16, "avx512 vdpbf16ps", AVX512 | KRY_CPU_AVX512_BF16, SUMS * 16 * 2 * 2, bf16_zmm,
     NULL},
    {LIMIT_BF16, "amx tdpbf16ps", KRY_CPU_AMX_BF16, TILE_SUMS *TILE_LANES *TILE_BYTES / 2 * 2,
     bf16_tiles, NULL},
    {LIMIT_INT8, "amx tdpbssd", KRY_CPU_AMX_INT8, TILE_SUMS *TILE_LANES *TILE_BYTES * 2, int8_tiles,
     NULL},
    {LIMIT_INT8, "avx512 vpdpbusd", AVX512 | KRY_CPU_AVX512_VNNI, SUMS * 16 * 4 * 2, int8_zmm,
     NULL},
    {LIMIT_INT8, "avx2 vpdpbusd", AVX2 | KRY_CPU_AVX_VNNI, SUMS * 8 * 4 * 2, int8_ymm_vnni, NULL},
    {LIMIT_INT8, "avx2 vpmaddubsw, vpmaddwd, vpaddd", AVX2, PAIRED_SUMS * 8 * 4 * 2, int8_ymm,
     NULL},
};
const size_t limits_x86_count = sizeof limits_x86 / sizeof limits_x86[0];

uint64_t limits_permitted(uint64_t cpu_features) {
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    const uint64_t tiles = KRY_CPU_AMX_BF16 | KRY_CPU_AMX_INT8;
    bool permitted = (cpu_features & tiles) != 0 &&
                     syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
    return permitted ? cpu_features : cpu_features & ~tiles;
}

#else

uint64_t limits_permitted(uint64_t cpu_features) { return cpu_features; }

const struct limit limits_x86[] = {{0}};
const size_t limits_x86_count = 0;

#endif
