#include "clocks.h"
void simt_clocks_begin(struct block *block) { (void)block; }
void simt_clocks_release_block(struct block *block) { (void)block; }
void simt_clocks_release(void) {}
void simt_clocks_barrier(struct block *block) { (void)block; }
void simt_clocks_wave_barrier(struct wave *wave) { (void)wave; }
void simt_clocks_part_barrier(struct block *block) { (void)block; }
void simt_clocks_cluster_barrier(struct block *cluster) { (void)cluster; }
void simt_clocks_mbarrier(struct mbarrier *m) { (void)m; }
void simt_clocks_arrive(struct mbarrier *m) { (void)m; }
void simt_clocks_wait(const struct mbarrier *m) { (void)m; }
void simt_clocks_phase(struct mbarrier *m) { (void)m; }
void simt_clocks_fly(const struct mbarrier *m, uint32_t at, uint32_t bytes) {
    (void)m;
    (void)at;
    (void)bytes;
}
void simt_clocks_operand(uint32_t batch, const unsigned char *b, uint32_t n, uint32_t step) {
    (void)batch;
    (void)b;
    (void)n;
    (void)step;
}
void simt_clocks_batches(struct thread *threads, uint32_t before) {
    (void)threads;
    (void)before;
}
void simt_clocks_read(struct block *block, uint32_t at, size_t bytes) {
    (void)block;
    (void)at;
    (void)bytes;
}
void simt_clocks_write(struct block *block, uint32_t at, size_t bytes) {
    (void)block;
    (void)at;
    (void)bytes;
}
