/* Kernels that meet as they should, and kernels that do not; for simt_meeting_test.c. Each is run
 * with a struct meeting_params. */
#ifndef TESTS_UNIT_GPU_SIMT_MEETING_KERNELS_H
#define TESTS_UNIT_GPU_SIMT_MEETING_KERNELS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct meeting_params {
    const uint32_t *in; /* [grid][block] */
    uint32_t *out;      /* [grid][block] */
    uint32_t *counter;  /* zero */
};

void reverse_block(const void *argument);
void reverse_block_without_barrier(const void *argument);
void rotate_in_rounds(const void *argument);
void rotate_in_rounds_without_second_barrier(const void *argument);
void reverse_wave(const void *argument);
void reverse_wave_without_barrier(const void *argument);
void barrier_for_half(const void *argument);
void barrier_in_each_branch(const void *argument);
void return_before_barrier(const void *argument);
void return_after_barrier_of_others(const void *argument);
void count_turns(const void *argument); /* out = the turn at which a thread came, from 0 */
void shuffle_sum(const void *argument);
void shuffle_for_half(const void *argument);
void shuffle_in_each_branch(const void *argument);
void shuffle_after_return(const void *argument);
void return_after_shuffle_of_others(const void *argument);
void shuffle_beyond_wave(const void *argument);
void shuffle_against_barrier(const void *argument);
void matrix_for_half(const void *argument);
void matrix_of_two_types(const void *argument);

#ifdef __cplusplus
}
#endif

#endif
