/*
 * What a race found, as JSON.
 */
#include "race_report.h"

#include "command.h"
#include "words.h"

#include <math.h>
#include <string.h>

/** A number, or null where there is none. */
static json_t *number(double value) {
    return value > 0 && isfinite(value) ? json_real(value) : json_null();
}

/** Units: a limit's rounds as they are; others from ns to seconds. */
static json_t *rounds_json(const struct race_report *report, const struct race_entry *entry) {
    json_t *list = json_array();
    double unit = entry->kind == RACE_LIMIT ? 1 : 1e-9;
    for (size_t i = 0; i < report->setting->pace.rounds; i++)
        json_add(list, number(entry->rounds[i] * unit));
    return list;
}

static json_t *limit_json(const struct race_report *report, const struct race_entry *entry) {
    json_t *object = json_object();
    /* A device has one way to each limit. */
    bool chosen = report->setting->on_device != NULL;
    if (!chosen) {
        const struct limit *way = limits_chosen(report->setting->pace.limits, entry->limit);
        chosen = way != NULL && strcmp(way->name, entry->name) == 0;
    }
    json_put(object, "limit", json_text(limit_word(entry->limit)));
    json_put(object, "way", json_text(entry->name));
    json_put(object, "chosen", json_boolean(chosen));
    json_put(object, "unit", json_text(limit_unit(entry->limit)));
    json_put(object, "threads", json_integer(entry->threads));
    json_put(object, "median", number(entry->median));
    if (entry->trouble[0] != '\0')
        json_put(object, "trouble", json_text(entry->trouble));
    json_put(object, "rounds", rounds_json(report, entry));
    return object;
}

static void put_kernel(json_t *object, const struct race_entry *entry) {
    if (entry->kernel.kernel == NULL)
        return;
    json_put(object, "kernel", json_text(entry->kernel.kernel));
    json_put(object, "plugin", json_text(entry->kernel.plugin));
    json_put(object, "fallback", json_boolean(entry->kernel.fallback));
}

/** How many times as long each peer takes as this kernel. */
static json_t *times_json(const struct race_report *report, const struct race_row *row,
                          const struct race_entry *entry) {
    json_t *times = json_object();
    for (size_t i = 0; i < row->count; i++)
        if (row->entries[i].kind == RACE_PEER)
            json_put(times, row->entries[i].name,
                     number(race_times(&report->setting->pace, entry, &row->entries[i])));
    return times;
}

static json_t *entry_json(const struct race_report *report, const struct race_row *row,
                          const struct race_entry *entry) {
    json_t *object = json_object();
    json_put(object, "name", json_text(entry->name));
    json_put(object, "kind", json_text(entry->kind == RACE_KERNEL ? "kernel" : "peer"));
    json_put(object, "beside", json_text(entry->beside));
    json_put(object, "threads", json_integer(entry->threads));
    put_kernel(object, entry);
    json_put(object, "median_seconds", number(entry->median * 1e-9));
    json_put(object, "applies", json_integer((json_int_t)entry->applies));
    json_put(object, "bytes", number(entry->bytes));
    json_put(object, "stored_bytes", number(entry->stored_bytes));
    json_put(object, "operations", number(entry->operations));
    json_put(object, "limit", json_text(limit_word(entry->limit)));
    json_put(object, "part_of_read",
             number(race_report_part(report, row, entry, LIMIT_READ, entry->bytes)));
    json_put(object, "part_of_read_as_stored",
             number(race_report_part(report, row, entry, LIMIT_READ, entry->stored_bytes)));
    json_put(object, "part_of_peak",
             number(race_report_part(report, row, entry, entry->limit, entry->operations)));
    if (entry->kind == RACE_KERNEL && entry->beside == NULL) {
        json_put(object, "times_of_one_thread",
                 number(race_report_beside(report, row, entry, "threads")));
        json_put(object, "times_of_aligned",
                 number(race_report_beside(report, row, entry, "aligned")));
        json_put(object, "peers_take_times", times_json(report, row, entry));
    }
    json_put(object, "trouble",
             entry->trouble[0] != '\0' ? json_text(entry->trouble) : json_null());
    json_put(object, "rounds", rounds_json(report, entry));
    return object;
}

static json_t *row_json(const struct race_report *report, const struct race_row *row) {
    json_t *object = json_object(), *limits = json_object(), *entries = json_array();
    json_put(object, "name", json_text(row->name));
    json_put(object, "linear", linear_json(&row->linear));
    json_put(object, "aligned",
             row->aligned.struct_size != 0 ? linear_json(&row->aligned) : json_null());
    json_put(object, "m", json_integer(row->m));
    for (size_t i = 0; i < row->count; i++) {
        const struct race_entry *entry = &row->entries[i];
        if (entry->kind == RACE_LIMIT)
            json_put(limits, entry->name, rounds_json(report, entry));
        else
            json_add(entries, entry_json(report, row, entry));
    }
    json_put(object, "limits", limits);
    json_put(object, "entries", entries);
    return object;
}

static json_t *peers_json(const struct race_setting *setting) {
    json_t *peers = json_array();
    for (size_t i = 0; i < setting->peer_count; i++) {
        const struct race_peer *peer = &setting->peers[i];
        json_t *object = json_object();
        json_put(object, "library", json_text(peer->library));
        json_put(object, "compute", json_text(peer->compute));
        json_put(object, "version",
                 race_peer_is_here(peer) ? json_text(race_peer_version(peer)) : json_null());
        json_put(object, "trouble",
                 race_peer_is_here(peer) ? json_null() : json_text(peer->trouble));
        json_add(peers, object);
    }
    return peers;
}

json_t *race_report_json(const struct race_report *report) {
    const struct race_setting *setting = report->setting;
    json_t *object = json_object(), *limits = json_array(), *rows = json_array();
    json_put(object, "kernelry", json_text(kry_version()));
    json_put(object, "commit", report->commit[0] != '\0' ? json_text(report->commit) : json_null());
    json_put(object, "date", json_text(report->date));
    json_put(object, "cpu", json_text(report->cpu));
    json_put(object, "device", device_json(setting->device));
    json_put(object, "load_before", json_real(report->load));
    json_put(object, "threads", json_integer(setting->threads));
    if (setting->on_device != NULL) {
        bool graphs = stream_clock_cuda(race_device_clock(setting->on_device)) != NULL;
        json_put(object, "timed_by", json_text(graphs ? "graph" : "queue"));
    }
    json_put(object, "rounds", json_integer((json_int_t)setting->pace.rounds));
    json_put(object, "slice_seconds", json_real((double)setting->pace.slice * 1e-9));
    json_put(object, "seed", json_integer((json_int_t)setting->seed));
    json_put(object, "peers", peers_json(setting));
    for (size_t i = 0; i < report->limits->count; i++)
        json_add(limits, limit_json(report, &report->limits->entries[i]));
    json_put(object, "limits", limits);
    for (size_t i = 0; i < report->rows->count; i++)
        json_add(rows, row_json(report, &report->rows->rows[i]));
    json_put(object, "rows", rows);
    return object;
}
