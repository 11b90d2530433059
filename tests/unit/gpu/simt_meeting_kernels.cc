#include "simt_meeting_kernels.h"

#include "plugins/gpu/device/target.h"

namespace {

const meeting_params &params_of(const void *argument) {
    return *static_cast<const meeting_params *>(argument);
}

uint32_t place() { return gpu_block() * gpu_threads() + gpu_thread(); }

uint32_t *shared_words() {
    GPU_SHARED(shared);
    return reinterpret_cast<uint32_t *>(shared);
}

/* out = in, reversed within the block, through shared memory. */
void reverse(const void *argument, bool with_barrier) {
    const meeting_params &p = params_of(argument);
    uint32_t *words = shared_words();
    words[gpu_thread()] = p.in[place()];
    if (with_barrier)
        gpu_barrier();
    p.out[place()] = words[gpu_threads() - 1 - gpu_thread()];
}

/* Eight rounds: each takes its left neighbour's value; so out is in, eight places to the right. */
void rotate(const void *argument, bool with_second_barrier) {
    const meeting_params &p = params_of(argument);
    uint32_t *words = shared_words();
    uint32_t value = p.in[place()];
    for (int round = 0; round < 8; round++) {
        words[gpu_thread()] = value;
        gpu_barrier();
        value = words[(gpu_thread() + gpu_threads() - 1) % gpu_threads()];
        if (with_second_barrier)
            gpu_barrier();
    }
    p.out[place()] = value;
}

void reverse_in_wave(const void *argument, bool with_barrier) {
    const meeting_params &p = params_of(argument);
    uint32_t *words = shared_words() + gpu_wave() * GPU_WAVE;
    words[gpu_lane()] = p.in[place()];
    if (with_barrier)
        gpu_wave_barrier();
    p.out[place()] = words[GPU_WAVE - 1 - gpu_lane()];
}

} // namespace

void reverse_block(const void *argument) { reverse(argument, true); }
void reverse_block_without_barrier(const void *argument) { reverse(argument, false); }
void rotate_in_rounds(const void *argument) { rotate(argument, true); }
void rotate_in_rounds_without_second_barrier(const void *argument) { rotate(argument, false); }
void reverse_wave(const void *argument) { reverse_in_wave(argument, true); }
void reverse_wave_without_barrier(const void *argument) { reverse_in_wave(argument, false); }

void barrier_for_half(const void *argument) {
    if (gpu_thread() < gpu_threads() / 2)
        gpu_barrier();
    params_of(argument).out[place()] = 0;
    gpu_wave_barrier(); /* the other half waits here: its waves have all their lanes */
}

void barrier_in_each_branch(const void *argument) {
    if (gpu_thread() < 5)
        gpu_barrier();
    else
        gpu_barrier();
    params_of(argument).out[place()] = 0;
}

void return_before_barrier(const void *argument) {
    if (gpu_thread() == 7)
        return;
    gpu_barrier();
    params_of(argument).out[place()] = 0;
}

void return_after_barrier_of_others(const void *argument) {
    if (gpu_thread() == 7) {
        for (int i = 0; i < 50; i++) /* others come to the barrier meanwhile */
            gpu_fence();
        return;
    }
    gpu_barrier();
    params_of(argument).out[place()] = 0;
}

void count_turns(const void *argument) {
    const meeting_params &p = params_of(argument);
    p.out[place()] = gpu_atomic_add(p.counter, 1);
}

void shuffle_sum(const void *argument) {
    const meeting_params &p = params_of(argument);
    uint32_t sum = p.in[place()];
    for (uint32_t mask = GPU_WAVE / 2; mask != 0; mask /= 2)
        sum += gpu_shuffle(sum, gpu_lane() ^ mask);
    p.out[place()] = sum;
}

void shuffle_for_half(const void *argument) {
    uint32_t value = gpu_lane();
    if (gpu_lane() < GPU_WAVE / 2)
        value = gpu_shuffle(value, 0);
    params_of(argument).out[place()] = value;
}

void shuffle_in_each_branch(const void *argument) {
    uint32_t value = gpu_lane();
    if (gpu_lane() % 2 != 0)
        value = gpu_shuffle(value, 1);
    else
        value = gpu_shuffle(value, 0);
    params_of(argument).out[place()] = value;
}

void shuffle_after_return(const void *argument) {
    if (gpu_lane() == 3)
        return;
    for (int i = 0; i < 50; i++) /* lane 3 is gone before */
        gpu_fence();
    params_of(argument).out[place()] = gpu_shuffle(gpu_lane(), 0);
}

void return_after_shuffle_of_others(const void *argument) {
    if (gpu_lane() == 3) {
        for (int i = 0; i < 50; i++) /* others come to the shuffle meanwhile */
            gpu_fence();
        return;
    }
    params_of(argument).out[place()] = gpu_shuffle(gpu_lane(), 0);
}

void shuffle_beyond_wave(const void *argument) {
    params_of(argument).out[place()] = gpu_shuffle(gpu_lane(), gpu_lane() + 1);
}

void shuffle_against_barrier(const void *argument) {
    uint32_t value = 0;
    if (gpu_lane() < 10)
        gpu_barrier();
    else
        value = gpu_shuffle(gpu_lane(), 0);
    params_of(argument).out[place()] = value;
}

void matrix_for_half(const void *argument) {
    float c[4] = {};
    const uint32_t a[4] = {}, b[2] = {};
    if (gpu_lane() < 16)
        gpu_mma_f16(c, a, b);
    params_of(argument).out[place()] = c[0] != 0;
}

void matrix_of_two_types(const void *argument) {
    float c[4] = {};
    const uint32_t a[4] = {}, b[2] = {};
    if (gpu_lane() < 16)
        gpu_mma_f16(c, a, b);
    else
        gpu_mma_bf16(c, a, b);
    params_of(argument).out[place()] = c[0] != 0;
}
