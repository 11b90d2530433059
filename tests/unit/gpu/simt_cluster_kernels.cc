#include "simt_cluster_kernels.h"

#include "plugins/gpu/device/target.h"

namespace {

const cluster_params &params_of(const void *argument) {
    return *static_cast<const cluster_params *>(argument);
}

uint32_t place() { return gpu_block() * gpu_threads() + gpu_thread(); }

/* The first 64 bytes are for mbarriers. */
uint32_t *shared_words() {
    GPU_SHARED(shared);
    return reinterpret_cast<uint32_t *>(shared + 64);
}

gpu_mbarrier *mbarrier(uint32_t i) {
    GPU_SHARED(shared);
    return reinterpret_cast<gpu_mbarrier *>(shared) + i;
}

/* What this block has of `in`, to the same place in another one. */
void store_all(const cluster_params &p, uint32_t rank, uint32_t round) {
    const uint32_t *from = p.in + place();
    const uint32_t at = gpu_thread() + (p.fault == STORE_BEYOND ? 256 : 0);
    if (gpu_thread() % 4 == 0)
        gpu_store_peer(shared_words() + at + (p.fault == STORE_MISALIGNED ? 1 : 0), rank,
                       {from[0] + round, from[1] + round, from[2] + round, from[3] + round},
                       mbarrier(0));
}

void meet_cluster() {
    gpu_cluster_arrive();
    gpu_cluster_wait();
}

void first_barrier(uint32_t fault) {
    if (fault == BARRIER_FOR_HALF) {
        if (gpu_thread() % 2 == 0)
            meet_cluster();
    } else if (fault == BARRIER_IN_EACH_BRANCH) {
        if (gpu_thread() % 2 == 0)
            gpu_cluster_arrive();
        else
            gpu_cluster_arrive();
        gpu_cluster_wait();
    } else if (fault == WAIT_ALONE) {
        gpu_cluster_wait();
    } else if (fault == ARRIVE_ALONE) {
        gpu_cluster_arrive();
    } else if (fault == ARRIVE_TWICE) {
        gpu_cluster_arrive();
        meet_cluster();
    } else if (fault != NO_FIRST_BARRIER) {
        meet_cluster();
    }
}

void init_pair(uint32_t first, uint32_t second) {
    if (gpu_thread() == 0) {
        gpu_mbarrier_init(mbarrier(0), first);
        gpu_mbarrier_init(mbarrier(1), second);
        gpu_mbarrier_publish();
    }
}

/* Bytes of all stores to a block. */
uint32_t stored_bytes(uint32_t fault) {
    const uint32_t bytes = gpu_threads() * 4;
    return fault == FEW_BYTES ? bytes - 16 : fault == MANY_BYTES ? bytes + 16 : bytes;
}

/* Others come first. */
void linger() {
    for (int i = 0; i < 50; i++)
        gpu_fence();
}

} // namespace

/* Stores may come before their bytes are expected. The last barrier is for those that are planted
 * to be late. */
void rotate_cluster(const void *argument) {
    const cluster_params &p = params_of(argument);
    init_pair(1, 1);
    first_barrier(p.fault);
    store_all(p, p.fault == RANK_BEYOND ? p.cluster : (gpu_cluster_rank() + 1) % p.cluster, 0);
    if (gpu_thread() == 0)
        gpu_mbarrier_expect(mbarrier(0), stored_bytes(p.fault));
    if (p.fault == WAIT_FOR_OWN)
        gpu_mbarrier_wait(mbarrier(0), 0);
    else if (p.fault != NO_WAIT)
        gpu_mbarrier_wait_peers(mbarrier(0), 0);
    p.out[place()] = shared_words()[gpu_thread()];
    meet_cluster();
}

void rotate_through_global(const void *argument) {
    const cluster_params &p = params_of(argument);
    const uint32_t rank = gpu_cluster_rank(), last = (rank + p.cluster - 1) % p.cluster;
    p.out[place()] = p.in[place()];
    if (p.fault != NO_FIRST_BARRIER)
        meet_cluster();
    const uint32_t value = p.out[place() + (last - rank) * gpu_threads()];
    meet_cluster();
    p.out[place()] = value;
}

void reverse_by_cluster(const void *argument) {
    const cluster_params &p = params_of(argument);
    uint32_t *words = shared_words(), value = 0;
    if (p.fault != WRITE_BEHIND_ARRIVAL)
        words[gpu_thread()] = p.in[place()];
    gpu_cluster_arrive();
    if (p.fault == WRITE_BEHIND_ARRIVAL)
        words[gpu_thread()] = p.in[place()];
    if (p.fault == READ_BEFORE_WAIT)
        value = words[gpu_threads() - 1 - gpu_thread()];
    gpu_cluster_wait();
    if (p.fault != READ_BEFORE_WAIT)
        value = words[gpu_threads() - 1 - gpu_thread()];
    p.out[place()] = value;
}

/* mbarrier 0: a row is there; 1: the next block has read its own. It is not told of the last round,
 * when it may have left. */
void rotate_in_rounds(const void *argument) {
    constexpr uint32_t ROUNDS = 3;
    const cluster_params &p = params_of(argument);
    const uint32_t next = (gpu_cluster_rank() + 1) % p.cluster;
    const uint32_t last = (gpu_cluster_rank() + p.cluster - 1) % p.cluster;
    init_pair(1, gpu_threads());
    if (p.fault == NO_BARRIER)
        gpu_barrier();
    else
        meet_cluster();
    uint32_t sum = 0;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        if (gpu_thread() == 0)
            gpu_mbarrier_expect(mbarrier(0), stored_bytes(p.fault));
        if (p.fault != NO_WAIT_FOR_ROOM)
            gpu_mbarrier_wait_peers(mbarrier(1), (round % 2) ^ 1);
        store_all(p, next, round);
        gpu_mbarrier_wait_peers(mbarrier(0), round % 2);
        sum += shared_words()[gpu_thread()];
        if (round + 1 < ROUNDS)
            gpu_mbarrier_arrive_at(mbarrier(1), p.fault == RANK_BEYOND ? p.cluster : last);
    }
    p.out[place()] = sum;
}

/* mbarriers 0 and 1: a row is full; 2 and 3: it is free. The first wave writes row r when it is
 * free, the second one reads it when it is full; so `out` of the second wave is the sum of the
 * first wave's rounds. */
void hand_on(const void *argument) {
    constexpr uint32_t ROUNDS = 7, ROWS = 2;
    const cluster_params &p = params_of(argument);
    GPU_SHARED(shared);
    if (gpu_thread() == 0 && p.fault != NO_INIT) {
        for (uint32_t i = 0; i < 2 * ROWS; i++)
            gpu_mbarrier_init(mbarrier(i), p.fault == NO_COUNT           ? 0
                                           : p.fault == ONE_ARRIVAL_MORE ? GPU_WAVE - 1
                                                                         : GPU_WAVE);
        if (p.fault == INIT_TWICE)
            gpu_mbarrier_init(mbarrier(1), GPU_WAVE);
        if (p.fault != NO_PUBLISH)
            gpu_mbarrier_publish();
    }
    if (p.fault != NO_BARRIER)
        gpu_barrier();
    if (p.fault == MISALIGNED)
        gpu_mbarrier_arrive(reinterpret_cast<gpu_mbarrier *>(shared + 4));
    if (p.fault == WRITTEN_OVER && gpu_thread() == 0)
        *mbarrier(1) = 0;
    uint32_t sum = 0;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        const uint32_t row = round % ROWS, phase = round / ROWS % 2;
        uint32_t *words = shared_words() + row * GPU_WAVE;
        if (gpu_wave() == 0) {
            if (p.fault != NO_WAIT_FOR_ROOM)
                gpu_mbarrier_wait(mbarrier(ROWS + row), phase ^ 1);
            words[gpu_lane()] = p.in[place()] + round;
            if (p.fault != ONE_ARRIVAL_LESS || gpu_lane() != 5)
                gpu_mbarrier_arrive(mbarrier(row));
        } else {
            if (p.fault != NO_WAIT)
                gpu_mbarrier_wait(mbarrier(row), p.fault == WRONG_PARITY ? phase ^ 1 : phase);
            sum = sum * 3 + words[GPU_WAVE - 1 - gpu_lane()];
            gpu_mbarrier_arrive(mbarrier(ROWS + row));
        }
    }
    p.out[place()] = sum;
}

/* A wave's barriers pass on what its lane has seen, and bring to it what the lanes did. */
void hand_on_by_one_lane(const void *argument) {
    const cluster_params &p = params_of(argument);
    if (gpu_thread() == 0) {
        gpu_mbarrier_init(mbarrier(0), 1);
        gpu_mbarrier_publish();
    }
    gpu_barrier();
    uint32_t *words = shared_words();
    if (gpu_wave() == 0) {
        words[gpu_lane()] = p.in[place()];
        if (p.fault != NO_BARRIER)
            gpu_wave_barrier();
        if (gpu_lane() == 7)
            gpu_mbarrier_arrive(mbarrier(0));
        return;
    }
    if (gpu_lane() == 9)
        gpu_mbarrier_wait(mbarrier(0), 0);
    gpu_wave_barrier();
    p.out[place()] = words[GPU_WAVE - 1 - gpu_lane()];
}

void reverse_part(const void *argument) {
    const cluster_params &p = params_of(argument);
    const uint32_t half = gpu_threads() / 2;
    uint32_t *words = shared_words();
    if (p.fault == PART_OF_LANES) {
        if (gpu_lane() % 2 == 0)
            gpu_part_barrier(half);
        return;
    }
    if (gpu_thread() >= half) {
        if (p.fault == PART_OF_OTHERS) {
            linger();
            gpu_part_barrier(half);
        }
        return;
    }
    if (p.fault == PART_MISSES_WAVE && gpu_wave() == 1)
        return;
    words[gpu_thread()] = p.in[place()];
    if (p.fault != NO_BARRIER)
        gpu_part_barrier(half);
    p.out[place()] = words[half - 1 - gpu_thread()];
}

void rotate_part_through_global(const void *argument) {
    const cluster_params &p = params_of(argument);
    const uint32_t half = gpu_threads() / 2, next = (gpu_thread() + 1) % half;
    if (gpu_thread() == 0)
        gpu_mbarrier_init(mbarrier(0), 1); /* the block is watched thread by thread */
    gpu_barrier();
    if (gpu_thread() >= half)
        return;
    p.out[place()] = p.in[place()];
    if (p.fault != NO_BARRIER)
        gpu_part_barrier(half);
    const uint32_t value = p.out[gpu_block() * gpu_threads() + next];
    gpu_part_barrier(half);
    p.out[place()] = value;
}

void elect_one(const void *argument) {
    const uint32_t wave = gpu_uniform_wave();
    if (params_of(argument).fault == ARRIVE_ALONE)
        gpu_cluster_arrive();
    params_of(argument).out[place()] = gpu_elect() ? wave + 1 : 0;
}

void store_to_ended_peer(const void *argument) {
    init_pair(1, 1);
    meet_cluster();
    if (gpu_cluster_rank() == 0)
        return;
    for (int i = 0; i < 40; i++)
        linger();
    store_all(params_of(argument), 0, 0);
}

void arrive_at_ended_peer(const void *) {
    init_pair(gpu_threads(), 1);
    meet_cluster();
    if (gpu_cluster_rank() == 0)
        return;
    for (int i = 0; i < 40; i++)
        linger();
    gpu_mbarrier_arrive_at(mbarrier(0), 0);
}

void copy_early(const void *argument) {
    const cluster_params &p = params_of(argument);
    uint32_t *words = shared_words();
    gpu_next_grid_start();
    uint32_t first = gpu_load_early(p.in);
    if (gpu_thread() == 0 && p.fault != TOO_EARLY)
        gpu_previous_grid_wait();
    if (p.fault != TOLD_BY_NOBODY)
        gpu_barrier();
    gpu_copy_async4(words + gpu_thread(), p.in + place());
    gpu_copy_async_commit();
    gpu_copy_async_wait<0>();
    p.out[place()] = words[gpu_thread()] + first - p.in[0];
}

void read_early(const void *argument) {
    const cluster_params &p = params_of(argument);
    uint32_t sum = 1;
    if (p.fault != TOO_EARLY)
        gpu_previous_grid_wait();
    sum += p.in[place()];
    p.out[place()] = sum;
}
