/*
 * What this machine can do at most: choosing a way, and measuring it on all threads.
 */
#include "machine_limits.h"

#include "bench.h"
#include "clock.h"
#include "last_cache.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    HUGE_PAGE = 2 << 20,
    CACHE_TIMES = 4,  /* what is read is so many times the last cache, */
    READ_LEAST = 128, /* at least so many MiB, */
    READ_PART = 8,    /* and at most one part in so many of the memory */
    /* What a thread does between two looks at the clock takes some hundred microseconds, like an
       apply at m = 1: where others take the processor away now and then, the median of such steps
       leaves them out, as it does for applies. */
    STEP_BYTES = 2 << 20,
    STEP_COMPUTE = 100 * 1000, /* iterations */
    STEPS_MOST = 4096,
    TRIALS = 3,
    TRIAL_NS = 10 * 1000 * 1000
};

/* ---- what runs everywhere ------------------------------------------------------------ */

static _Thread_local volatile uint64_t sink;

/* Plain C: sums of words, which compilers turn into whatever vectors they may use. */
static void read_words(const void *memory, uint64_t iterations) {
    const uint64_t *words = memory;
    uint64_t sum[8] = {0};
    for (; iterations > 0; iterations--, words += 8)
        for (int i = 0; i < 8; i++)
            sum[i] += words[i];
    for (int i = 0; i < 8; i++)
        sink = sum[i];
}

static const struct limit portable[] = {
    {.kind = LIMIT_READ, .name = "words", .work = 8 * sizeof(uint64_t), .read = read_words}};
enum { PORTABLE = sizeof portable / sizeof portable[0] };

const struct limit *limits_way(size_t index) {
    if (index < limits_x86_count)
        return &limits_x86[index];
    index -= limits_x86_count;
    return index < PORTABLE ? &portable[index] : NULL;
}

const char *limit_word(enum limit_kind kind) {
    static const char *const words[] = {"read", "f32", "bf16", "int8", "f16"};
    return words[kind];
}

const char *limit_unit(enum limit_kind kind) { return kind == LIMIT_READ ? "GB/s" : "Gop/s"; }

/* ---- measuring ----------------------------------------------------------------------- */

/** A thread's share, on cache lines of its own. */
struct share {
    _Alignas(128) uint8_t *memory; /* what it reads */
    uint64_t at;                   /* where it reads next */
};

struct limits {
    struct crew *crew;
    uint64_t cpu_features;
    void *mapped;
    size_t mapped_bytes;
    uint64_t share_bytes;
    struct share *shares;
    const struct limit *chosen[LIMIT_KINDS];

    const struct limit *limit; /* being measured */
};

/* One step of a thread. It reads on from where it stopped, through all of its share in turn. */
static void take_step(void *argument, int64_t i) {
    const struct limits *limits = argument;
    const struct limit *limit = limits->limit;
    struct share *share = &limits->shares[i];
    if (limit->compute != NULL) {
        limit->compute(STEP_COMPUTE);
        return;
    }
    limit->read(share->memory + share->at, STEP_BYTES / limit->work);
    share->at += STEP_BYTES;
    if (share->at >= limits->share_bytes)
        share->at = 0;
}

double limits_measure(struct limits *limits, const struct limit *limit, int64_t nanoseconds) {
    double iterations =
        limit->compute != NULL ? STEP_COMPUTE : (double)STEP_BYTES / (double)limit->work;
    double work = iterations * (double)limit->work * crew_used(limits->crew);
    int64_t times[STEPS_MOST], begin = clock_now(), now = begin;
    size_t count = 0;
    limits->limit = limit;
    crew_each(limits->crew, take_step, limits); /* wakes the threads */
    do {
        now = clock_now();
        crew_each(limits->crew, take_step, limits);
        times[count] = clock_now() - now;
        count++;
    } while (count < STEPS_MOST && now - begin < nanoseconds);
    return work / (double)median_of(times, count);
}

/* ---- choosing ------------------------------------------------------------------------ */

static void choose(struct limits *limits, enum limit_kind kind) {
    double best = 0;
    for (size_t i = 0; limits_way(i) != NULL; i++) {
        const struct limit *limit = limits_way(i);
        if (limit->kind != kind ||
            (limit->cpu_features & limits->cpu_features) != limit->cpu_features)
            continue;
        double reached = 0;
        for (int trial = 0; trial < TRIALS; trial++) {
            double rate = limits_measure(limits, limit, TRIAL_NS);
            reached = rate > reached ? rate : reached;
        }
        if (reached > best) {
            best = reached;
            limits->chosen[kind] = limit;
        }
    }
}

/** How much a thread reads before it begins anew: together far more than caches hold. */
static uint64_t share_bytes(int32_t threads, uint64_t asked) {
    long pages = sysconf(_SC_PHYS_PAGES);
    uint64_t bytes = last_cache_bytes(NULL) * CACHE_TIMES;
    if (bytes < (uint64_t)READ_LEAST << 20)
        bytes = (uint64_t)READ_LEAST << 20;
    bytes = asked > 0 ? asked : bytes;
    uint64_t most = pages > 0 ? (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE) / READ_PART : 0;
    if (most > 0 && bytes > most)
        bytes = most;
    return bytes / (uint64_t)threads / HUGE_PAGE * HUGE_PAGE + HUGE_PAGE;
}

/* Touched by the thread that will read it, so that the memory is near it; and not zero, or some
   systems would map one page of zeros many times. */
static void fill_share(void *argument, int64_t i) {
    const struct limits *limits = argument;
    memset(limits->shares[i].memory, 0x5a, limits->share_bytes);
}

static kry_status map_shares(struct limits *limits, uint64_t read_bytes) {
    uint64_t threads = (uint64_t)crew_used(limits->crew);
    limits->share_bytes = share_bytes((int32_t)threads, read_bytes);
    limits->mapped_bytes = limits->share_bytes * threads + HUGE_PAGE;
    void *mapped = mmap(NULL, limits->mapped_bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    limits->mapped = mapped != MAP_FAILED ? mapped : NULL;
    limits->shares = aligned_alloc(_Alignof(struct share), threads * sizeof *limits->shares);
    if (limits->mapped == NULL || limits->shares == NULL)
        return kry_error_set(KRY_E_MEMORY, "no memory to read from (%zu bytes)",
                             limits->mapped_bytes);
    uintptr_t first = ((uintptr_t)mapped + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    /* A system without huge pages reads all the same. */
    (void)madvise((void *)first, limits->share_bytes * threads, MADV_HUGEPAGE);
    for (uint64_t i = 0; i < threads; i++)
        limits->shares[i] = (struct share){.memory = (uint8_t *)first + i * limits->share_bytes};
    crew_each(limits->crew, fill_share, limits);
    return KRY_OK;
}

kry_status limits_create(struct crew *crew, uint64_t cpu_features, uint64_t read_bytes,
                         struct limits **out) {
    struct limits *limits = calloc(1, sizeof *limits);
    if (limits == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    limits->crew = crew;
    limits->cpu_features = limits_permitted(cpu_features);
    kry_status status = map_shares(limits, read_bytes);
    if (status != KRY_OK) {
        limits_destroy(&limits);
        return status;
    }
    for (int kind = 0; kind < LIMIT_KINDS; kind++)
        choose(limits, (enum limit_kind)kind);
    *out = limits;
    return KRY_OK;
}

const struct limit *limits_chosen(const struct limits *limits, enum limit_kind kind) {
    return limits->chosen[kind];
}

void limits_destroy(struct limits **limits) {
    struct limits *gone = *limits;
    if (gone == NULL)
        return;
    if (gone->mapped != NULL)
        munmap(gone->mapped, gone->mapped_bytes);
    free(gone->shares);
    free(gone);
    *limits = NULL;
}
