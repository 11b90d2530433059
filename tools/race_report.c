/*
 * What a race found, as text.
 */
#include "race_report.h"

#include "table.h"
#include "words.h"

#include <inttypes.h>
#include <string.h>

enum { PEERS_MOST = 16, COLUMNS_FIXED = 8, COLUMNS_MOST = COLUMNS_FIXED + 2 + PEERS_MOST };

static void add_number(struct table *table, const char *format, double value) {
    char text[32] = "-";
    if (value > 0)
        snprintf(text, sizeof text, format, value);
    table_add(table, STYLE_PLAIN, "%s", text);
}

/* ---- limits -------------------------------------------------------------------------- */

static bool print_limits(const struct race_report *report, FILE *out) {
    static const struct column of_cpu[] = {{"LIMIT", false},
                                           {"REACHED BY", false},
                                           {"THREADS", true},
                                           {"MEDIAN", true},
                                           {"UNIT", false}};
    static const struct column of_device[] = {
        {"LIMIT", false}, {"REACHED BY", false}, {"MEDIAN", true}, {"UNIT", false}};
    bool on_device = report->setting->on_device != NULL;
    struct table table;
    table_begin(&table, on_device ? of_device : of_cpu,
                on_device ? sizeof of_device / sizeof of_device[0]
                          : sizeof of_cpu / sizeof of_cpu[0]);
    bool measured[LIMIT_KINDS] = {false};
    for (size_t i = 0; i < report->limits->count; i++) {
        const struct race_entry *entry = &report->limits->entries[i];
        measured[entry->limit] = true;
        table_add(&table, STYLE_BOLD, "%s", limit_word(entry->limit));
        table_add(&table, STYLE_PLAIN, "%s", entry->name);
        if (!on_device)
            table_add(&table, STYLE_PLAIN, "%" PRId32, entry->threads);
        add_number(&table, "%.1f", entry->median);
        table_add(&table, STYLE_DIM, "%s", limit_unit(entry->limit));
        if (entry->trouble[0] != '\0')
            table_note(&table, STYLE_WARNING, "%s", entry->trouble);
    }
    for (int kind = 0; kind < LIMIT_KINDS; kind++) {
        if (measured[kind] || on_device || kind == LIMIT_F16)
            continue;
        table_add(&table, STYLE_BOLD, "%s", limit_word((enum limit_kind)kind));
        table_add(&table, STYLE_DIM, "not measured: no instruction for it that is known here");
        table_add(&table, STYLE_PLAIN, "-");
        table_add(&table, STYLE_PLAIN, "-");
        table_add(&table, STYLE_DIM, "%s", limit_unit((enum limit_kind)kind));
    }
    return table_print(&table, out, 0);
}

/* ---- rows ---------------------------------------------------------------------------- */

/** Which columns there are beyond those that always are. */
struct shown {
    bool threads;
    bool aligned;
    const struct race_peer *peers[PEERS_MOST];
    size_t peer_count;
};

static struct shown find_shown(const struct race_report *report) {
    const struct race_setting *setting = report->setting;
    struct shown shown = {0};
    for (size_t i = 0; i < setting->peer_count && shown.peer_count < PEERS_MOST; i++)
        if (race_peer_is_here(&setting->peers[i]))
            shown.peers[shown.peer_count++] = &setting->peers[i];
    for (size_t i = 0; i < report->rows->count; i++)
        for (size_t j = 0; j < report->rows->rows[i].count; j++) {
            const char *beside = report->rows->rows[i].entries[j].beside;
            shown.threads = shown.threads || (beside != NULL && strcmp(beside, "threads") == 0);
            shown.aligned = shown.aligned || (beside != NULL && strcmp(beside, "aligned") == 0);
        }
    return shown;
}

/** The entry of the same class beside this one, or NULL. */
static const struct race_entry *find_beside(const struct race_row *row,
                                            const struct race_entry *entry, const char *beside) {
    for (size_t i = 0; i < row->count; i++) {
        const struct race_entry *other = &row->entries[i];
        if (other->beside != NULL && strcmp(other->beside, beside) == 0 &&
            strcmp(other->name, entry->name) == 0)
            return other;
    }
    return NULL;
}

static const struct race_entry *find_peer(const struct race_row *row, const char *name) {
    for (size_t i = 0; i < row->count; i++)
        if (row->entries[i].kind == RACE_PEER && strcmp(row->entries[i].name, name) == 0)
            return &row->entries[i];
    return NULL;
}

static void peer_name(const struct race_peer *peer, char out[RACE_NAME_BYTES]) {
    snprintf(out, RACE_NAME_BYTES, "%.40s %s", peer->library, peer->compute);
}

double race_report_part(const struct race_report *report, const struct race_row *row,
                        const struct race_entry *entry, enum limit_kind kind, double work) {
    const struct race_entry *limit = race_row_limit(row, kind);
    return limit != NULL ? race_part(&report->setting->pace, entry, work, limit) : 0;
}

double race_report_beside(const struct race_report *report, const struct race_row *row,
                          const struct race_entry *entry, const char *beside) {
    const struct race_entry *other = find_beside(row, entry, beside);
    if (other == NULL || entry->beside != NULL || entry->kind != RACE_KERNEL)
        return 0;
    if (strcmp(beside, "threads") == 0)
        return race_times(&report->setting->pace, entry, other);
    return race_times(&report->setting->pace, other, entry) * other->weights / entry->weights;
}

static void add_entry(struct table *table, const struct race_report *report,
                      const struct race_row *row, const struct race_entry *entry, bool first,
                      const struct shown *shown) {
    bool kernel = entry->kind == RACE_KERNEL;
    char text[LINEAR_TEXT_BYTES];
    table_add(table, STYLE_BOLD, "%s", first ? row->name : "");
    table_add(table, STYLE_PLAIN, "%s", first ? linear_format(&row->linear, text) : "");
    table_add(table, STYLE_PLAIN, "%" PRId64, row->m);
    table_add(table, kernel ? STYLE_BOLD : STYLE_PLAIN, "%s", entry->name);
    table_add(table, entry->kernel.fallback ? STYLE_WARNING : STYLE_GOOD, "%s",
              kernel && entry->kernel.kernel != NULL ? entry->kernel.kernel : "");
    add_number(table, "%.1f", entry->median * 1e-3);
    add_number(table, "%.2f", race_report_part(report, row, entry, LIMIT_READ, entry->bytes));
    add_number(table, "%.2f",
               race_report_part(report, row, entry, entry->limit, entry->operations));
    if (shown->threads)
        add_number(table, "%.2f×", race_report_beside(report, row, entry, "threads"));
    if (shown->aligned)
        add_number(table, "%.2f×", race_report_beside(report, row, entry, "aligned"));
    for (size_t i = 0; i < shown->peer_count; i++) {
        char name[RACE_NAME_BYTES];
        peer_name(shown->peers[i], name);
        const struct race_entry *peer = find_peer(row, name);
        bool compared = kernel && peer != NULL;
        add_number(table, "%.2f×", compared ? race_times(&report->setting->pace, entry, peer) : 0);
    }
}

static void add_row(struct table *table, const struct race_report *report,
                    const struct race_row *row, const struct shown *shown) {
    bool first = true;
    for (size_t i = 0; i < row->count; i++) {
        const struct race_entry *entry = &row->entries[i];
        if (entry->kind == RACE_LIMIT || entry->beside != NULL)
            continue;
        bool kernel = entry->kind == RACE_KERNEL; /* a peer's trouble names it */
        add_entry(table, report, row, entry, first, shown);
        if (entry->trouble[0] != '\0')
            table_note(table, STYLE_WARNING, "%s%s%s", kernel ? entry->name : "",
                       kernel ? ": " : "", entry->trouble);
        first = false;
    }
}

static bool print_rows(const struct race_report *report, FILE *out) {
    struct column columns[COLUMNS_MOST] = {{"LAYER", false}, {"K×N", false},    {"M", true},
                                           {"WHO", false},   {"KERNEL", false}, {"us", true},
                                           {"READ", true},   {"PEAK", true}};
    char names[PEERS_MOST][RACE_NAME_BYTES];
    size_t count = COLUMNS_FIXED;
    struct shown shown = find_shown(report);
    if (shown.threads)
        columns[count++] = (struct column){"THREADS", true};
    if (shown.aligned)
        columns[count++] = (struct column){"ALIGNED", true};
    for (size_t i = 0; i < shown.peer_count; i++) {
        peer_name(shown.peers[i], names[i]);
        columns[count++] = (struct column){names[i], true};
    }
    struct table table;
    table_begin(&table, columns, count);
    for (size_t i = 0; i < report->rows->count; i++)
        add_row(&table, report, &report->rows->rows[i], &shown);
    return table_print(&table, out, 0);
}

static void print_legend(const struct race_report *report, FILE *out) {
    struct shown shown = find_shown(report);
    fputs(report->setting->on_device != NULL
              ? "\nus      median of an apply, weights from memory\n"
                "READ    time in which a kernel reads the bytes that the description has\n"
                "PEAK    part of the rate at which cuBLAS multiplies large matrices of f16\n"
              : "\nus      median of an apply, weights from memory\n"
                "READ    part of the read limit: bytes as the description has them\n"
                "PEAK    part of the limit of the arithmetic: int8, bf16 or f32\n",
          out);
    if (shown.threads)
        fprintf(out, "THREADS how many times as long one thread takes as %" PRId32 "\n",
                report->setting->threads);
    if (shown.aligned)
        fputs("ALIGNED time per weight, in times of that of the nearest aligned layer\n", out);
    if (shown.peer_count > 0)
        fputs("others  how many times as long that library takes\n", out);
}

static void print_device(const struct race_report *report, FILE *out) {
    const struct race_setting *setting = report->setting;
    const struct stream_clock *clock = race_device_clock(setting->on_device);
    fprintf(out, "%s, %s, %" PRIu32 " multiprocessors; ", report->cpu, setting->device->arch,
            setting->device->multiprocessors);
    if (stream_clock_cuda(clock) != NULL)
        fputs("timed by replaying graphs\n", out);
    else
        fprintf(out, "timed by enqueuing many (%s)\n", stream_clock_trouble(clock));
}

bool race_report_print(const struct race_report *report, FILE *out) {
    const struct race_setting *setting = report->setting;
    if (setting->on_device != NULL)
        print_device(report, out);
    else
        fprintf(out, "%s, %" PRId32 " threads\n", report->cpu, setting->threads);
    fprintf(out, "kernelry %s%s%s%s, %s, %zu rounds of %.0f ms, seed %" PRIu64 "\n", kry_version(),
            report->commit[0] != '\0' ? " (" : "", report->commit,
            report->commit[0] != '\0' ? ")" : "", report->date, setting->pace.rounds,
            (double)setting->pace.slice * 1e-6, setting->seed);
    fprintf(out, "load before: %.1f\n", report->load);
    for (size_t i = 0; i < setting->peer_count; i++) {
        const struct race_peer *peer = &setting->peers[i];
        if (race_peer_is_here(peer))
            fprintf(out, "%s %s: version %s\n", peer->library, peer->compute,
                    race_peer_version(peer));
        else
            fprintf(out, "%s %s: not here: %s\n", peer->library, peer->compute, peer->trouble);
    }
    putc('\n', out);
    bool printed = print_limits(report, out);
    if (report->rows->count == 0)
        return printed;
    putc('\n', out);
    printed = print_rows(report, out) && printed;
    print_legend(report, out);
    return printed;
}
