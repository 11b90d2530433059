/*
 * The checks, in the order in which they are reported.
 */
#include "checks.h"

#include <kernelry/plugin.h>

static const struct check checks[] = {
    /* Asking. */
    {{"pure", "KRY-P01", "can_implement is a pure function of its arguments"},
     .run = check_pure,
     .needs_no_device = true,
     .takes_refused = true},
    {{"asking", "KRY-P01", "several threads may ask at once"},
     .run = check_asking,
     .needs_no_device = true,
     .takes_refused = true,
     .most_quick = 40,
     .most = 200},
    {{"refusals", "KRY-P02", "refusals are complete"},
     .run = check_refusals,
     .needs_no_device = true,
     .takes_refused = true,
     .idle = "it refuses none of the descriptions tried"},
    {{"sizes", "KRY-P04", "sizes are possible, and always the same"},
     .run = check_sizes,
     .needs_no_device = true},
    {{"workspace", "KRY-P05", "the workspace never shrinks as m grows"},
     .run = check_workspace,
     .needs_no_device = true,
     .idle = "it asks for no workspace"},
    {{"runs", "KRY-P03", "what is accepted runs, for any m"}, .run = check_runs},

    /* Numbers. */
    {{"numbers", "KRY-P14", "y is x * dequant(W)^T"}, .run = check_numbers},
    {{"one-hot", "KRY-P14", "one-hot x gives the weight"}, .run = check_one_hot, .most_quick = 400},
    {{"large-m", "KRY-P14", "y of hundreds of rows is right"},
     .run = check_large_m,
     .most_quick = 10,
     .most = 60},
    {{"bias", "KRY-P15", "the bias is added, once"},
     .run = check_bias,
     .most_quick = 100,
     .most = 500},
    {{"nan", "KRY-P24", "a NaN shows in its row, and in no other"},
     .run = check_nan,
     .most_quick = 100,
     .most = 500,
     .idle = "it takes but a single column"},

    /* Memory. */
    {{"operands", "KRY-P10", "apply writes y alone and reads no column too many"},
     .run = check_operands,
     .most_quick = 300},
    {{"alignment", "KRY-P16", "x, y and bias may lie anywhere"},
     .run = check_alignment,
     .most_quick = 150,
     .most = 1000},
    {{"bounds", "KRY-P17", "everything stays inside the sizes told"},
     .run = check_bounds,
     .most_quick = 300},
    {{"zeroed", "KRY-P11", "the zeroed part is left cleared"},
     .run = check_zeroed,
     .most_quick = 150,
     .most = 1000,
     .idle = "it asks for no zeroed part"},
    {{"allocations", "KRY-P08", "apply allocates nothing"},
     .run = check_allocations,
     .most_quick = 60,
     .most = 300},
    {{"waits", "KRY-P09", "apply waits for nothing"},
     .run = check_waits,
     .most_quick = 30,
     .most = 100},
    {{"captured", "KRY-P09", "apply can be captured in a graph, and replayed"},
     .run = check_captured,
     .most_quick = 30,
     .most = 200,
     .idle = "graphs are known here of the platform cuda alone"},
    {{"surroundings", "KRY-P25", "every call leaves the thread as it found it"},
     .run = check_surroundings,
     .most_quick = 30,
     .most = 100},

    /* Weights. */
    {{"offline", "KRY-P06", "host weights are prepared without the device"},
     .run = check_offline,
     .needs_no_device = true,
     .most_quick = 100,
     .most = 500},
    {{"ranges", "KRY-P06", "ranges may come in any order"},
     .run = check_ranges,
     .most_quick = 150,
     .most = 1000},
    {{"reload", "KRY-P18", "other weights may be loaded in place"},
     .run = check_reload,
     .most_quick = 100,
     .most = 500},
    {{"moved", "KRY-P07", "prepared weights may be moved"},
     .run = check_moved,
     .most_quick = 100,
     .most = 500},

    /* Several runs. */
    {{"repeats", "KRY-P19", "the same bits each time, on any threads"},
     .run = check_repeats,
     .most_quick = 50,
     .most = 300,
     .flag = KRY_KERNEL_DETERMINISTIC,
     .unflagged = "it is not said to be deterministic"},
    {{"batches", "KRY-P20", "a row does not depend on the others"},
     .run = check_batches,
     .most_quick = 30,
     .most = 200,
     .flag = KRY_KERNEL_BATCH_INVARIANT,
     .unflagged = "it is not said to be batch-invariant"},
    {{"threads", "KRY-P21", "several threads may call at once"},
     .run = check_threads,
     .most_quick = 12,
     .most = 60},
    {{"borrowed", "KRY-P22", "arguments are kept by nobody"},
     .run = check_borrowed,
     .most_quick = 60,
     .most = 300},
    {{"released", "KRY-P23", "memory of the host is given back"},
     .run = check_released,
     .most_quick = 30,
     .most = 100},
};

const struct conformance_check *conformance_check_at(size_t index) {
    return index < sizeof checks / sizeof checks[0] ? &checks[index].shown : NULL;
}

const struct check *check_of(const struct conformance_check *shown) {
    size_t index = 0;
    while (&checks[index].shown != shown)
        index++;
    return &checks[index];
}
