/* What a launch that is ended says: where, and what each thread of the block was doing. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "state.h"

static void add(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void add_list(const char *format, va_list arguments) {
    const size_t used = strlen(simt_run.message);
    vsnprintf(simt_run.message + used, sizeof simt_run.message - used, format, arguments);
}

static void add(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    add_list(format, arguments);
    va_end(arguments);
}

static const char *file_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

static bool is_alike(const struct thread *a, const struct thread *b) {
    return a->state == b->state && (a->state == THREAD_ENDED || (a->place.word == b->place.word &&
                                                                 a->place.line == b->place.line));
}

static void add_thread_state(const struct thread *thread) {
    static const char *const states[] = {
        [THREAD_READY] = "ready",
        [THREAD_AT_BARRIER] = "waiting for the block",
        [THREAD_AT_PART] = "waiting for a part of the block",
        [THREAD_AT_CLUSTER] = "waiting for the cluster",
        [THREAD_AT_MBARRIER] = "waiting for an mbarrier",
        [THREAD_IN_WAVE] = "waiting for the wave",
        [THREAD_IN_GROUP] = "waiting for the warpgroup",
        [THREAD_POLLING] = "polling a counter",
        [THREAD_ENDED] = "ended",
    };
    add(" %s", states[thread->state]);
    if (thread->state == THREAD_ENDED) {
        return;
    }
    if (thread->place.word == NULL) {
        add(" to begin");
    } else {
        add(" at %s (%s:%d)", thread->place.word, file_name(thread->place.file),
            thread->place.line);
    }
}

/* The numbers of the threads that do as this one does, as ranges. */
static void add_numbers(const struct block *block, const struct thread *like) {
    enum { MOST_RANGES = 6 };
    const uint32_t count = simt_run.launch.block;
    uint32_t ranges = 0;
    for (uint32_t first = like->index; first < count;) {
        uint32_t end = first;
        while (end < count && is_alike(like, &block->threads[end])) {
            end++;
        }
        if (end == first) {
            first++;
            continue;
        }
        if (++ranges > MOST_RANGES) {
            add(" and more");
            return;
        }
        add(end - first == 1 ? " %u" : " %u-%u", first, end - 1);
        first = end;
    }
}

static void add_census(const struct block *block) {
    for (uint32_t i = 0; i < simt_run.launch.block; i++) {
        const struct thread *thread = &block->threads[i];
        bool is_first = true;
        for (uint32_t before = 0; is_first && before < i; before++) {
            is_first = !is_alike(thread, &block->threads[before]);
        }
        if (is_first) {
            add("; threads");
            add_numbers(block, thread);
            add_thread_state(thread);
        }
    }
}

static void begin_report(const struct block *block) {
    simt_run.failed = true;
    simt_run.message[0] = '\0';
    add("kernel %s", simt_run.launch.name);
    if (block != NULL) {
        add(", block %u of %u", block->index, simt_run.launch.grid);
    }
    add(", seed %llu", (unsigned long long)simt_run.launch.seed);
}

void simt_report(const struct block *block, const char *format, ...) {
    begin_report(block);
    add(": ");
    va_list arguments;
    va_start(arguments, format);
    add_list(format, arguments);
    va_end(arguments);
    if (block != NULL) {
        add_census(block);
    }
}

void simt_report_more(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    add_list(format, arguments);
    va_end(arguments);
}

void simt_fail(const char *format, ...) {
    begin_report(simt_self->block);
    add(", thread %u", simt_self->index);
    if (simt_self->place.word != NULL) {
        add(" at %s (%s:%d)", simt_self->place.word, file_name(simt_self->place.file),
            simt_self->place.line);
    }
    add(": ");
    va_list arguments;
    va_start(arguments, format);
    add_list(format, arguments);
    va_end(arguments);
    add_census(simt_self->block);
    simt_fiber_leave(true);
    __builtin_unreachable();
}

/* ASan calls this before its own report, which knows nothing of blocks and threads. */
void __asan_on_error(void); /* NOLINT(bugprone-reserved-identifier): ASan's name */
void __asan_on_error(void) {
    if (simt_self != NULL) {
        fprintf(stderr, "simt: kernel %s, block %u, thread %u, after %s (%s:%d), seed %llu\n",
                simt_run.launch.name, simt_self->block->index, simt_self->index,
                simt_self->place.word != NULL ? simt_self->place.word : "its start",
                simt_self->place.file != NULL ? file_name(simt_self->place.file) : "-",
                simt_self->place.line, (unsigned long long)simt_run.launch.seed);
    }
}
