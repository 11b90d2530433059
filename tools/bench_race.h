/*
 * `kernelry bench` against limits and peers: its options, and what they start.
 */
#ifndef KERNELRY_TOOLS_BENCH_RACE_H
#define KERNELRY_TOOLS_BENCH_RACE_H

#include "command.h"
#include "race_plan.h"

/* The options, to stand in the subcommand's table. */
enum { RACE_OPTION_FIRST = OPTION_OWN + 100 };
enum {
    RACE_OPTION_LIMITS = RACE_OPTION_FIRST,
    RACE_OPTION_READ_MIB,
    RACE_OPTION_PEER,
    RACE_OPTION_YARDSTICK,
    RACE_OPTION_RANDOM_SHAPES,
    RACE_OPTION_AWKWARD,
    RACE_OPTION_COMPUTE,
    RACE_OPTION_THREADS,
    RACE_OPTION_SCALING,
    RACE_OPTION_ROUNDS,
    RACE_OPTION_STORE,
    RACE_OPTION_PYTHON,
    RACE_OPTION_BENCH_DIR,
    RACE_OPTION_PEER_TIMEOUT
};
#define RACE_OPTIONS                                                                               \
    {"limits", NULL, "measure what this machine can do at most", RACE_OPTION_LIMITS},              \
        {"read-mib", "MIB", "of memory to read; default: 4 times the last cache",                  \
         RACE_OPTION_READ_MIB},                                                                    \
        {"peer", "P,...", "measure onnxruntime, openvino, torch, cublas in turn with ours",        \
         RACE_OPTION_PEER},                                                                        \
        {"yardstick", NULL, "4096×4096 and 2112×2816; on a GPU larger ones, too",                  \
         RACE_OPTION_YARDSTICK},                                                                   \
        {"random-shapes", "COUNT", "aligned layers, drawn with --seed",                            \
         RACE_OPTION_RANDOM_SHAPES},                                                               \
        {"awkward", NULL, "layers of a million weights or more, beside aligned ones",              \
         RACE_OPTION_AWKWARD},                                                                     \
        {"compute", "C,...", "of f32, f16, bf16, int8: what ours compute in",                      \
         RACE_OPTION_COMPUTE},                                                                     \
        {"threads", "T", "of everybody; default: the CPUs of this process", RACE_OPTION_THREADS},  \
        {"scaling", NULL, "measure one thread too, for m of 16 and more", RACE_OPTION_SCALING},    \
        {"rounds", "R", "slices of --milliseconds; default 9", RACE_OPTION_ROUNDS},                \
        {"store", "FOLDER", "write JSON, text and a plot there", RACE_OPTION_STORE},               \
        {"python", "PATH", "Python with the peers; also KERNELRY_BENCH_PYTHON",                    \
         RACE_OPTION_PYTHON},                                                                      \
        {"bench-dir", "FOLDER", "with peer_*.py and plot.py; default: the install's",              \
         RACE_OPTION_BENCH_DIR},                                                                   \
    {                                                                                              \
        "peer-timeout", "S", "seconds that a peer may take to answer; default 300",                \
            RACE_OPTION_PEER_TIMEOUT                                                               \
    }

enum { RACE_PEERS_MOST = 16 };

/** What the options say. */
struct race_request {
    bool wanted; /* any of them was given */
    bool yardstick;
    bool awkward;
    bool scaling;
    int64_t random_shapes;
    int64_t threads; /* 0: not given */
    int64_t rounds;
    int64_t peer_seconds;
    int64_t read_mib; /* 0: not given */
    unsigned computes;
    const char *store;
    const char *python;
    const char *bench_dir;
    struct race_peer peers[RACE_PEERS_MOST];
    size_t peer_count;
};

/** What holds before options are read. */
struct race_request race_request_begin(void);

/** Store an option of RACE_OPTIONS. Returns false after a complaint. */
bool race_request_read(struct arguments *arguments, int option, struct race_request *request);

/** Measure what was asked for, and `given` layers; report and store. Returns an exit code. */
int bench_race(const struct common_options *common, const struct race_request *request,
               const struct race_plan *given, int64_t nanoseconds);

#endif
