#include "simt_memory_kernels.h"

#include "plugins/gpu/device/target.h"

namespace {

const memory_params &params_of(const void *argument) {
    return *static_cast<const memory_params *>(argument);
}

enum class fault {
    none,
    no_wait,
    few_waited_for,
    no_barrier,
    early_overwrite,
    no_first_fence,
    no_last_fence
};

constexpr uint32_t STAGES = 3;

uint32_t *words_of(uint32_t tile, uint32_t thread) {
    GPU_SHARED(shared);
    return reinterpret_cast<uint32_t *>(shared) + (tile % STAGES * gpu_threads() + thread) * 4;
}

void copy_tile(const memory_params &p, uint32_t tile) {
    if (tile < MEMORY_TILES)
        gpu_copy_async16(words_of(tile, gpu_thread()),
                         p.in + (tile * gpu_threads() + gpu_thread()) * 4);
    gpu_copy_async_commit();
}

void run_pipeline(const void *argument, fault planted) {
    const memory_params &p = params_of(argument);
    uint32_t sum = 0;
    for (uint32_t tile = 0; tile + 1 < STAGES; tile++)
        copy_tile(p, tile);
    for (uint32_t tile = 0; tile < MEMORY_TILES; tile++) {
        if (planted == fault::few_waited_for)
            gpu_copy_async_wait<STAGES - 1>();
        else if (planted != fault::no_wait)
            gpu_copy_async_wait<STAGES - 2>();
        if (planted == fault::early_overwrite) /* others still read tile - 1 there */
            copy_tile(p, tile + STAGES - 1);
        if (planted != fault::no_barrier)
            gpu_barrier();
        if (planted != fault::early_overwrite)
            copy_tile(p, tile + STAGES - 1);
        const uint32_t *words = words_of(tile, (gpu_thread() + 1) % gpu_threads());
        sum += words[0] + words[1] * 3 + words[2] * 5 + words[3] * 7;
    }
    p.out[gpu_thread()] = sum;
}

void sum_blocks(const void *argument, fault planted) {
    const memory_params &p = params_of(argument);
    GPU_SHARED(shared);
    uint32_t *is_last = reinterpret_cast<uint32_t *>(shared);
    p.out[1 + gpu_block() * gpu_threads() + gpu_thread()] =
        p.in[gpu_block() * gpu_threads() + gpu_thread()];
    if (planted != fault::no_first_fence)
        gpu_fence();
    if (planted != fault::no_barrier)
        gpu_barrier();
    if (gpu_thread() == 0) {
        *is_last = gpu_atomic_add(p.counter, 1) + 1 == gpu_blocks();
        if (*is_last != 0)
            *p.counter = 0;
    }
    gpu_barrier();
    if (planted != fault::no_last_fence)
        gpu_fence();
    if (*is_last == 0 || gpu_thread() != 0)
        return;
    uint32_t sum = 0;
    for (uint32_t i = 0; i < gpu_blocks() * gpu_threads(); i++)
        sum += p.out[1 + i];
    p.out[0] = sum;
}

} // namespace

void pipeline(const void *argument) { run_pipeline(argument, fault::none); }
void pipeline_without_wait(const void *argument) { run_pipeline(argument, fault::no_wait); }
void pipeline_that_waits_for_too_few(const void *argument) {
    run_pipeline(argument, fault::few_waited_for);
}
void pipeline_without_barrier(const void *argument) { run_pipeline(argument, fault::no_barrier); }
void pipeline_that_overwrites_too_early(const void *argument) {
    run_pipeline(argument, fault::early_overwrite);
}

void copy_some(const void *argument) {
    const memory_params &p = params_of(argument);
    GPU_SHARED(shared);
    uint32_t *mine = reinterpret_cast<uint32_t *>(shared) + gpu_thread() * 8;
    const uint32_t *from = p.in + gpu_thread() * 8;
    const bool is_odd = gpu_thread() % 2 != 0;
    gpu_copy_async16_if(mine, is_odd ? from : nullptr, is_odd);
    gpu_copy_async4(mine + 4, from + 5);
    gpu_copy_async_commit();
    gpu_copy_async_wait<0>();
    for (uint32_t i = 0; i < 5; i++)
        p.out[gpu_thread() * 5 + i] = mine[i];
}

void copy_beyond_shared(const void *argument) {
    GPU_SHARED(shared);
    gpu_copy_async16(shared + 16 * 256 - 16 + (gpu_thread() == 9 ? 16 : 0), params_of(argument).in);
}

void copy_misaligned(const void *argument) {
    GPU_SHARED(shared);
    gpu_copy_async16(shared + gpu_thread() * 16, params_of(argument).in + (gpu_thread() == 9));
}

void copy_from_beyond(const void *argument) {
    GPU_SHARED(shared);
    gpu_copy_async4(shared + gpu_thread() * 4, params_of(argument).in + (gpu_thread() == 9));
}

void load_misaligned(const void *argument) {
    params_of(argument).out[gpu_thread()] =
        gpu_load_cached(params_of(argument).in + (gpu_thread() == 9)).x;
}

void read_before_write(const void *argument) {
    GPU_SHARED(shared);
    const uint32_t *words = reinterpret_cast<const uint32_t *>(shared);
    params_of(argument).out[gpu_thread()] = words[gpu_thread()];
}

void write_beyond_shared(const void *) {
    GPU_SHARED(shared);
    volatile uint32_t *words = reinterpret_cast<uint32_t *>(shared);
    words[gpu_thread() * 4] = 1; /* room for 256 threads; there are more */
}

void sum_of_blocks(const void *argument) { sum_blocks(argument, fault::none); }
void sum_of_blocks_without_first_fence(const void *argument) {
    sum_blocks(argument, fault::no_first_fence);
}
void sum_of_blocks_without_last_fence(const void *argument) {
    sum_blocks(argument, fault::no_last_fence);
}
void sum_of_blocks_without_barrier(const void *argument) {
    sum_blocks(argument, fault::no_barrier);
}

void all_blocks_write_one_word(const void *argument) {
    if (gpu_thread() == 0)
        *params_of(argument).out = 1;
}

void wait_for_next_block(const void *argument) {
    const memory_params &p = params_of(argument);
    if (gpu_thread() == 0) {
        if (gpu_block() + 1 < gpu_blocks())
            while (gpu_atomic_add(p.counter + gpu_block() + 1, 0) == 0)
                gpu_fence();
        gpu_atomic_add(p.counter + gpu_block(), 1);
    }
    gpu_barrier();
    p.out[gpu_block() * gpu_threads() + gpu_thread()] = gpu_block();
}

void wait_for_nobody(const void *argument) {
    const memory_params &p = params_of(argument);
    if (gpu_thread() == 3)
        while (gpu_atomic_add(p.counter, 0) == 0) {
        }
    gpu_barrier();
}

void load_matrices(const void *argument) {
    const memory_params &p = params_of(argument);
    GPU_SHARED(shared);
    uint32_t *words = reinterpret_cast<uint32_t *>(shared);
    uint32_t *out = p.out + gpu_lane() * 11;
    for (uint32_t i = gpu_lane(); i < 32 * 4; i += 32)
        words[i] = p.in[i];
    gpu_wave_barrier();
    const void *row = words + gpu_lane() * 4;
    simt_load_matrix(simt_place{"x4", __FILE__, __LINE__}, 4, false, row, out);
    simt_load_matrix(simt_place{"x4.trans", __FILE__, __LINE__}, 4, true, row, out + 4);
    simt_load_matrix(simt_place{"x2", __FILE__, __LINE__}, 2, false,
                     gpu_lane() < 16 ? row : nullptr, out + 8);
    simt_load_matrix(simt_place{"x1", __FILE__, __LINE__}, 1, false, gpu_lane() < 8 ? row : nullptr,
                     out + 10);
}
