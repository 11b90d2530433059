/*
 * Peers: other libraries, each driven in a process of its own that speaks lines of JSON on its
 * standard input and output (bench/README.md describes them). A peer is stopped between requests,
 * so that threads of it that wait for work by spinning take no time from whoever is measured then.
 */
#ifndef KERNELRY_TOOLS_PEER_H
#define KERNELRY_TOOLS_PEER_H

#include "synthetic.h"

/** What all peers read, in memory shared with them: a layer's weights and activations. */
struct peer_data;

/** Errors: KRY_E_MEMORY, KRY_E_IO. */
kry_status peer_data_create(struct peer_data **out);
void peer_data_destroy(struct peer_data **data);

/** Put in weights and x [m_most, in_features]. Errors: KRY_E_MEMORY. */
kry_status peer_data_fill(struct peer_data *data, const struct synthetic *synthetic, const float *x,
                          int64_t m_most);
/** y [m, out_features], as a peer's answer to peer_check left it. */
const float *peer_data_y(const struct peer_data *data);

/** How to start a peer. Borrowed while it is. */
struct peer_command {
    const char *python;  /* searched in PATH */
    const char *folder;  /* holds peer_LIBRARY.py */
    const char *library; /* "onnxruntime" */
    const char *compute; /* its numeric class: "int8", "f32", "bf16" */
    int32_t threads;
    int64_t timeout; /* for each answer. Units: ns */
};

struct peer;

/**
 * Start a peer and wait until its library is loaded.
 *
 * Errors     KRY_E_UNSUPPORTED: it says that it cannot run here; KRY_E_IO: it ended, said
 *            something that is no answer, or nothing in time.
 */
kry_status peer_start(const struct peer_command *command, const struct peer_data *data,
                      struct peer **out);
/** Ask it to end, and see to it. */
void peer_end(struct peer **peer);

/** Of its library, as it says. */
const char *peer_version(const struct peer *peer);

/*
 * Requests. Errors: KRY_E_UNSUPPORTED: the peer says why it cannot, and goes on; KRY_E_IO: as
 * for peer_start, and the peer is gone; KRY_E_STATE: it was gone before.
 */

/** Make so many copies of the layer in the shared memory. */
kry_status peer_prepare(struct peer *peer, const struct peer_data *data,
                        const struct synthetic *synthetic, size_t copies);
/** Compute y of the first m rows of x, into the shared memory. */
kry_status peer_check(struct peer *peer, int64_t m);
/** Apply the copies in turn, after so many applies that do not count. */
kry_status peer_run(struct peer *peer, int64_t m, size_t uncounted, size_t applies,
                    int64_t *nanoseconds);
/** Give back the copies. */
kry_status peer_release(struct peer *peer);

#endif
