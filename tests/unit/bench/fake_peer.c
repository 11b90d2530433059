/*
 * Stands in for Python and a peer's script: fake_peer SCRIPT CLASS THREADS. It computes y by
 * itself; FAKE_PEER names the one way in which it goes wrong, FAKE_PEER_LOG a file that gets a
 * line for each run that was asked for.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { DATA_DESCRIPTOR = 3, APPLY_NS = 200 * 1000 };

static const char *fault(void) {
    const char *name = getenv("FAKE_PEER");
    return name != NULL ? name : "none";
}

static bool faulty(const char *name) { return strcmp(fault(), name) == 0; }

/** A layer in the shared memory. */
struct layer {
    uint8_t *memory;
    size_t bytes;
    int64_t k, n, group_size, groups, bits;
    const uint8_t *codes;
    const float *scales;
    const uint8_t *zero_points; /* or NULL */
    const float *x;
    float *y;
};

static int64_t field(json_t *request, const char *name) {
    json_t *value = json_object_get(request, name);
    if (!json_is_integer(value)) {
        fprintf(stderr, "fake_peer: no %s in the request\n", name);
        exit(9);
    }
    return json_integer_value(value);
}

static void prepare(json_t *request, struct layer *layer) {
    struct stat data;
    if (fstat(DATA_DESCRIPTOR, &data) != 0)
        exit(9);
    layer->bytes = (size_t)data.st_size;
    layer->memory =
        mmap(NULL, layer->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, DATA_DESCRIPTOR, 0);
    if (layer->memory == MAP_FAILED)
        exit(9);
    layer->k = field(request, "in_features");
    layer->n = field(request, "out_features");
    layer->group_size = field(request, "group_size");
    layer->groups = field(request, "groups");
    layer->bits = field(request, "bits");
    if (field(request, "copies") < 2)
        exit(9);
    layer->codes = layer->memory + field(request, "codes");
    layer->scales = (const float *)(layer->memory + field(request, "scales"));
    layer->zero_points = json_object_get(request, "zero_points") != NULL
                             ? layer->memory + field(request, "zero_points")
                             : NULL;
    layer->x = (const float *)(layer->memory + field(request, "x"));
    layer->y = (float *)(layer->memory + field(request, "y"));
}

static void check(const struct layer *layer, int64_t m) {
    for (int64_t row = 0; row < m; row++)
        for (int64_t n = 0; n < layer->n; n++) {
            double sum = 0;
            for (int64_t k = 0; k < layer->k; k++) {
                int64_t g = n * layer->groups + k / layer->group_size;
                double zero = layer->zero_points != NULL ? layer->zero_points[g]
                                                         : (double)(1 << (layer->bits - 1));
                sum += (double)layer->x[row * layer->k + k] *
                       (layer->codes[n * layer->k + k] - zero) * (double)layer->scales[g];
            }
            layer->y[row * layer->n + n] = (float)(faulty("wrong") ? 2 * sum : sum);
        }
}

static json_t *run(json_t *request, const char *compute) {
    int64_t applies = field(request, "applies");
    json_t *times = json_array();
    for (int64_t i = 0; i < applies; i++) {
        struct timespec time = {.tv_nsec = APPLY_NS};
        nanosleep(&time, NULL);
        json_array_append_new(times, json_integer(faulty("boasts")   ? 0
                                                  : faulty("dreams") ? (json_int_t)1 << 40
                                                                     : APPLY_NS));
    }
    if (faulty("repeats"))
        json_array_append_new(times, json_integer(APPLY_NS));
    const char *path = getenv("FAKE_PEER_LOG");
    FILE *log = path != NULL ? fopen(path, "a") : NULL;
    if (log != NULL) {
        fprintf(log, "%s m %lld\n", compute, (long long)field(request, "m"));
        fclose(log);
    }
    return json_pack("{sb so}", "ok", 1, "nanoseconds", times);
}

static void say(json_t *answer) {
    char *text = json_dumps(answer, JSON_COMPACT);
    puts(text);
    fflush(stdout);
    free(text);
    json_decref(answer);
}

static char line_without_end[1 << 16];

/** What happens when a run is asked for, instead of a run. */
static void go_wrong(void) {
    memset(line_without_end, 'x', sizeof line_without_end);
    if (faulty("ends"))
        exit(3);
    if (faulty("crashes"))
        abort();
    if (faulty("babbles"))
        puts("Loading weights...");
    if (faulty("shrugs"))
        puts("{\"ok\": false}");
    if (faulty("hangs"))
        pause();
    for (; faulty("rambles");)
        fwrite(line_without_end, 1, sizeof line_without_end, stdout);
}

int main(int argc, char **argv) {
    struct layer layer = {0};
    char line[65536];
    if (argc != 4 || strstr(argv[1], "/peer_") == NULL || atoi(argv[3]) < 1)
        return 9;
    if (faulty("absent")) {
        say(json_pack("{sb ss}", "ok", 0, "reason", "No module named 'torch'"));
        return 0;
    }
    say(json_pack("{sb ss}", "ok", 1, "version", "1.2.3"));
    while (fgets(line, sizeof line, stdin) != NULL) {
        json_t *request = json_loads(line, 0, NULL);
        const char *wanted = json_string_value(json_object_get(request, "do"));
        if (wanted == NULL)
            return 9;
        if (strcmp(wanted, "prepare") == 0 && faulty("refuses")) {
            say(json_pack("{sb ss}", "ok", 0, "reason", "N a multiple of 16"));
        } else if (strcmp(wanted, "run") == 0) {
            go_wrong();
            say(run(request, argv[2]));
        } else {
            if (strcmp(wanted, "prepare") == 0)
                prepare(request, &layer);
            if (strcmp(wanted, "check") == 0)
                check(&layer, field(request, "m"));
            if (strcmp(wanted, "release") == 0 && layer.memory != NULL)
                munmap(layer.memory, layer.bytes);
            say(json_pack("{sb}", "ok", 1));
        }
        json_decref(request);
    }
    return 0;
}
