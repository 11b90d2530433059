#include "simt_wide_kernels.h"

#include <string.h>

#include "plugins/gpu/device/target.h"

namespace {

constexpr uint32_t STAGES = 2, GROUP = 128;

template <int N> struct layout {
    static constexpr uint32_t BOX = N * 128;
    static constexpr uint32_t BARRIERS = STAGES * BOX;
};

template <int N> unsigned char *box(uint32_t stage) {
    GPU_SHARED(shared);
    return shared + stage * layout<N>::BOX;
}

template <int N> gpu_mbarrier *full(uint32_t stage) {
    GPU_SHARED(shared);
    return reinterpret_cast<gpu_mbarrier *>(shared + layout<N>::BARRIERS) + stage;
}

template <int N> gpu_mbarrier *free_again(uint32_t stage) { return full<N>(STAGES + stage); }

/* One lane copies boxes. */
template <int N> void copy_boxes(const wide_params &p) {
    for (uint32_t tile = 0; tile < WIDE_TILES; tile++) {
        const uint32_t stage = tile % STAGES, phase = tile / STAGES % 2;
        constexpr uint32_t BYTES = layout<N>::BOX;
        if (p.fault != WIDE_NO_FREE_WAIT)
            gpu_mbarrier_wait(free_again<N>(stage), phase ^ 1);
        if (p.fault == WIDE_NO_EXPECT)
            gpu_mbarrier_arrive(full<N>(stage));
        else
            gpu_mbarrier_expect(full<N>(stage), p.fault == WIDE_FEW_BYTES    ? BYTES - 16
                                                : p.fault == WIDE_MANY_BYTES ? BYTES + 16
                                                                             : BYTES);
        wide_params broken = p;
        broken.b.words[0]++;
        gpu_tensor_copy(box<N>(stage) + (p.fault == WIDE_BOX_MISPLACED ? 256 : 0),
                        p.fault == WIDE_NOT_A_MAP ? &broken.b : &p.b,
                        p.column + static_cast<int32_t>(tile * WIDE_TILE_K), p.row, full<N>(stage));
        if (p.fault == WIDE_EARLY_END && tile == 2)
            return;
    }
}

void load_a(const wide_params &p, uint32_t tile, uint32_t (&a)[4][4]) {
    const uint32_t thread = gpu_thread() % GROUP, group = gpu_thread() / GROUP;
    for (uint32_t step = 0; step < 4; step++)
        memcpy(a[step], p.a + (((group * WIDE_TILES + tile) * 4 + step) * GROUP + thread) * 4,
               sizeof a[step]);
}

/* One lane of each wave gives a box back that all have read themselves, too. */
bool is_freed_by_lane(const wide_params &p) {
    return p.fault == WIDE_LANE_FREES || p.fault == WIDE_LANE_FREES_EARLY;
}

template <int N, bool BF16>
void multiply_tile(const wide_params &p, uint32_t tile, float (&c)[N / 2]) {
    const uint32_t stage = tile % STAGES;
    const uint32_t thread = gpu_thread() % GROUP;
    uint32_t a[4][4];
    float other[N / 2] = {};
    load_a(p, tile, a);
    if (is_freed_by_lane(p)) {
        const volatile unsigned char *bytes = box<N>(stage);
        other[0] = bytes[thread * 16];
    }
    if (p.fault == WIDE_B_WRITTEN || p.fault == WIDE_B_PUBLISHED) {
        if (gpu_thread() == 9)
            box<N>(stage)[0] = static_cast<unsigned char>(box<N>(stage)[0] | 0);
        if (gpu_thread() == 9 && p.fault == WIDE_B_PUBLISHED)
            gpu_shared_publish();
        gpu_part_barrier(gpu_threads() / GROUP * GROUP);
    }
    if (p.fault != WIDE_NO_FENCE || tile != 1)
        gpu_wgmma_fence();
    if (p.fault == WIDE_A_AFTER_FENCE)
        a[1][2] ^= 4;
    if (p.fault == WIDE_C_AFTER_FENCE)
        c[3] *= 2;
    if (p.fault == WIDE_MISSING_LANES && thread % 32 == 7)
        return;
    gpu_wgmma<N, BF16>(c, a[0], box<N>(stage), 0);
    if (p.fault == WIDE_OTHER_C && thread == 9)
        gpu_wgmma<N, BF16>(other, a[1], box<N>(stage), 1);
    else if (p.fault == WIDE_OTHER_BOX && thread == 9)
        gpu_wgmma<N, BF16>(c, a[1], box<N>(stage), 3);
    else
        gpu_wgmma<N, BF16>(c, a[1], box<N>(stage), 1);
    gpu_wgmma<N, BF16>(c, a[2], box<N>(stage), 2);
    gpu_wgmma<N, BF16>(c, a[3], box<N>(stage), 3);
    if (p.fault != WIDE_NO_COMMIT)
        gpu_wgmma_commit();
    if (p.fault == WIDE_C_READ)
        p.c[gpu_threads() * (N / 2)] = c[0];
    if (p.fault == WIDE_C_WRITTEN && thread == 9)
        c[3] = 1;
    if (p.fault == WIDE_A_WRITTEN && thread == 9)
        a[2][1] ^= 1;
    const bool frees = !is_freed_by_lane(p) || thread % 32 == 0;
    const bool early = p.fault == WIDE_FREE_BEFORE_WAIT || p.fault == WIDE_LANE_FREES_EARLY;
    if (early && frees)
        gpu_mbarrier_arrive(free_again<N>(stage));
    if (p.fault != WIDE_NO_WAIT)
        gpu_wgmma_wait<0>();
    if (!early && frees)
        gpu_mbarrier_arrive(free_again<N>(stage));
}

/* Two halves of c, and a box is given back a tile later. */
void multiply_pipelined(const wide_params &p, float (&c)[32]) {
    constexpr int N = 64;
    uint32_t a[2][4][4];
    float low[16], high[16];
    memcpy(low, c, sizeof low);
    memcpy(high, c + 16, sizeof high);
    for (uint32_t tile = 0; tile < WIDE_TILES; tile++) {
        const uint32_t stage = tile % STAGES;
        load_a(p, tile, a[tile % 2]);
        gpu_mbarrier_wait(full<N>(stage), tile / STAGES % 2);
        gpu_wgmma_fence();
        for (uint32_t step = 0; step < 4; step++) {
            gpu_wgmma<N / 2, false>(low, a[tile % 2][step], box<N>(stage), step);
            if (p.fault == WIDE_OVERLAPPING_C)
                gpu_wgmma<8, false>(reinterpret_cast<float(&)[4]>(low[4]), a[tile % 2][step],
                                    box<N>(stage), step);
            gpu_wgmma<N / 2, false>(high, a[tile % 2][step], box<N>(stage) + 32 * 128, step);
        }
        gpu_wgmma_commit();
        gpu_wgmma_wait<1>();
        if (p.fault == WIDE_FREE_TOO_NEW)
            gpu_mbarrier_arrive(free_again<N>(stage));
        else if (tile != 0)
            gpu_mbarrier_arrive(free_again<N>((tile - 1) % STAGES));
        if (p.fault == WIDE_READ_TOO_NEW && tile == 2)
            p.c[gpu_threads() * (N / 2)] = low[0];
    }
    gpu_wgmma_wait<0>();
    memcpy(c, low, sizeof low);
    memcpy(c + 16, high, sizeof high);
}

template <int N, bool BF16> void multiply_tiles(const wide_params &p, float (&c)[N / 2]) {
    for (uint32_t tile = 0; tile < WIDE_TILES; tile++) {
        if (p.fault == WIDE_FROM_SECOND_WAVE && gpu_wave() == 0)
            break;
        const uint32_t phase = tile / STAGES % 2;
        if (p.fault != WIDE_NO_FULL_WAIT)
            gpu_mbarrier_wait(full<N>(tile % STAGES),
                              p.fault == WIDE_WRONG_PARITY ? phase ^ 1 : phase);
        multiply_tile<N, BF16>(p, tile, c);
    }
}

template <int N, class Multiply> void multiply(const wide_params &p, Multiply multiply_all) {
    const uint32_t groups = gpu_threads() / GROUP;
    if (gpu_thread() == 0) {
        for (uint32_t stage = 0; stage < STAGES; stage++) {
            gpu_mbarrier_init(full<N>(stage), 1);
            gpu_mbarrier_init(free_again<N>(stage),
                              is_freed_by_lane(p) ? groups * 4 : groups * GROUP);
        }
        gpu_mbarrier_publish();
    }
    gpu_barrier();
    if (gpu_thread() >= groups * GROUP) {
        gpu_registers_give<40>();
        if (gpu_lane() == 0)
            copy_boxes<N>(p);
        return;
    }
    if (p.fault == WIDE_TAKE_ALL)
        gpu_registers_take<256>();
    else if (p.fault != WIDE_GIVE_BY_HALF || gpu_wave() % 2 == 0)
        gpu_registers_take<232>();
    float *mine = p.c + gpu_thread() * (N / 2);
    float c[N / 2];
    memcpy(c, mine, sizeof c);
    multiply_all(p, c);
    memcpy(mine, c, sizeof c);
}

const wide_params &params_of(const void *argument) {
    return *static_cast<const wide_params *>(argument);
}

} // namespace

void product_8_f16(const void *argument) {
    multiply<8>(params_of(argument), multiply_tiles<8, false>);
}
void product_64_f16(const void *argument) {
    multiply<64>(params_of(argument), multiply_tiles<64, false>);
}
void product_64_bf16(const void *argument) {
    multiply<64>(params_of(argument), multiply_tiles<64, true>);
}
void product_256_bf16(const void *argument) {
    multiply<256>(params_of(argument), multiply_tiles<256, true>);
}
void pipelined_64_f16(const void *argument) {
    multiply<64>(params_of(argument), multiply_pipelined);
}

void copy_in_bulk(const void *argument) {
    const bulk_params &p = *static_cast<const bulk_params *>(argument);
    GPU_SHARED(shared);
    gpu_mbarrier *barrier = reinterpret_cast<gpu_mbarrier *>(shared);
    if (gpu_thread() == 0) {
        gpu_mbarrier_init(barrier, 1);
        gpu_mbarrier_publish();
    }
    for (uint32_t i = gpu_thread(); p.over_writes && i < p.copies * p.bytes; i += gpu_threads())
        shared[p.at + i] = 1;
    if (p.is_published)
        gpu_shared_publish();
    gpu_barrier();
    if (gpu_thread() == 0)
        gpu_mbarrier_expect(barrier, p.expected);
    gpu_barrier();
    if (gpu_thread() < p.copies)
        gpu_bulk_copy(shared + p.at + gpu_thread() * p.bytes, p.from + gpu_thread() * p.bytes,
                      p.bytes, barrier);
    gpu_barrier();
    if (!p.without_wait)
        gpu_mbarrier_wait(barrier, 0);
    for (uint32_t i = gpu_thread(); i < p.copies * p.bytes; i += gpu_threads())
        p.to[i] = shared[p.at + i];
}

void copy_box(const void *argument) {
    const wide_params &p = params_of(argument);
    GPU_SHARED(shared);
    gpu_mbarrier *barrier = reinterpret_cast<gpu_mbarrier *>(shared + 8192);
    if (gpu_thread() == 0) {
        gpu_mbarrier_init(barrier, 1);
        gpu_mbarrier_publish();
        gpu_mbarrier_expect(barrier, 8192);
        gpu_tensor_copy(shared, &p.b, p.column, p.row, barrier);
    }
    gpu_barrier();
    gpu_mbarrier_wait(barrier, 0);
    if (gpu_thread() == 0)
        memcpy(p.c, shared, 8192);
}
