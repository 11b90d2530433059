/* What the parts of the SIMT layer for sm_90a tell each other. */
#ifndef TESTS_SUPPORT_SIMT_HOPPER_H
#define TESTS_SUPPORT_SIMT_HOPPER_H

#include "state.h"

enum { SIMT_MBARRIERS = 64, SIMT_GROUP = 128, SIMT_GROUPS = 1024 / SIMT_GROUP };

/* ---- mbarrier.c ---------------------------------------------------------------------------- */

struct mbarrier {
    struct block *block;
    uint32_t offset;  /* in shared memory */
    uint32_t count;   /* arrivals of a phase */
    uint32_t pending; /* arrivals that the phase lacks */
    int64_t bytes;    /* that it lacks; negative: came before they were expected */
    uint32_t phases;  /* that are over */
    uint32_t flying;  /* bulk copies that count at the phase */
    struct thread *waiters;
    struct thread *initialiser;
    bool is_published;
    bool has_peers;            /* another block of the cluster has arrived or stored */
    bool brings_previous_grid; /* one who arrived knows that it is over */
    uint32_t met[SCOPES];      /* by the initialiser, when it published */
    uint32_t cluster_arrivals; /* likewise */
    uint32_t *gathered;        /* see clocks.c: of those who arrived in this phase */
    uint32_t *released;        /* of those before */
};

/* The mbarrier at an address of the calling thread's block, ready for its use; fails otherwise. */
struct mbarrier *simt_mbarrier_at(const void *address);
/* That at the same place in another block of the cluster. */
struct mbarrier *simt_mbarrier_of_peer(struct block *peer, const void *address);

/* A bulk copy counts from now on, and its bytes have come. The latter from the scheduler: what is
 * wrong, or NULL. */
void simt_mbarrier_flies(struct mbarrier *mbarrier);
const char *simt_mbarrier_lands(struct mbarrier *mbarrier, uint32_t bytes);

/* The index of an mbarrier in its block. */
uint32_t simt_mbarrier_index(const struct mbarrier *mbarrier);

/* Add what those wait for that cannot go on to the message. */
void simt_mbarriers_report(void);
void simt_mbarriers_release(struct block *block);

/* ---- bulk.c -------------------------------------------------------------------------------- */

/* Let a copy land, `waited`: one that somebody waits for. From the scheduler; false: there is none.
 */
bool simt_bulk_land(bool waited);
/* Fails where a copy to the block is under way, which ends. */
void simt_bulk_check_ended(const struct block *block);
void simt_bulk_release(void);

/* Fails where the calling thread must not touch global memory yet. */
void simt_check_previous_grid(void);
/* Fails, where ASan knows, unless all bytes are memory of the test. */
void simt_need_memory(const void *from, uint32_t bytes);

/* ---- cluster.c ----------------------------------------------------------------------------- */

/* Another block of the calling thread's cluster, which has not ended; fails otherwise. */
struct block *simt_peer(uint32_t rank);
/* A thread has ended: all others of its cluster may have arrived now. */
void simt_cluster_check_ended(const struct thread *thread);

/* ---- wgmma.c ------------------------------------------------------------------------------- */

/* The calling thread wrote to its own stack: where registers of a gpu_wgmma are played. */
void simt_group_wrote(const void *memory, size_t bytes);
void simt_group_check_ended(const struct thread *thread);
void simt_groups_release(struct block *block);

#endif
