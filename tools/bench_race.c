/*
 * `kernelry bench` against limits and peers.
 */
#include "bench_race.h"

#include "applying.h"
#include "progress.h"
#include "race_report.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    ROUNDS = 9,
    PEER_SECONDS = 300,
    PEER_SECONDS_MOST = 3600,
    RANDOM_MOST = 1000,
    READ_MIB_MOST = 1 << 20
};
#define LOAD_WARNING 0.5               /* processes that run, on average */
static const char CUBLAS[] = "cublas"; /* the peer that is no process */

struct race_request race_request_begin(void) {
    return (struct race_request){.rounds = ROUNDS, .peer_seconds = PEER_SECONDS};
}

/* ---- options ------------------------------------------------------------------------- */

static bool add_peer(struct race_request *request, const char *library, const char *compute) {
    if (request->peer_count == RACE_PEERS_MOST)
        return false;
    struct race_peer *peer = &request->peers[request->peer_count++];
    peer->library = library;
    snprintf(peer->compute, sizeof peer->compute, "%s", compute);
    return true;
}

/** A library, or one of its classes: "openvino", "openvino:int8". The names stay where they are,
 *  in the command's arguments. */
static const char *read_peer(struct race_request *request, char *word) {
    static const struct {
        const char *library, *computes[2];
    } known[] = {{"onnxruntime", {"int8", "f32"}},
                 {"openvino", {"int8", "f32"}},
                 {"torch", {"bf16"}},
                 {CUBLAS, {"f16", "bf16"}},
                 {"torch_cuda", {"bf16"}}};
    const char *library = strsep(&word, ":");
    unsigned bit;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(library, known[i].library) != 0)
            continue;
        if (word != NULL)
            return !parse_compute(word, &bit)         ? "a class is f32, f16, bf16 or int8"
                   : add_peer(request, library, word) ? NULL
                                                      : "too many peers";
        for (size_t j = 0; j < 2 && known[i].computes[j] != NULL; j++)
            if (!add_peer(request, library, known[i].computes[j]))
                return "too many peers";
        return NULL;
    }
    return "expected onnxruntime, openvino, torch, cublas or torch_cuda, or one with its class as "
           "in openvino:int8";
}

static bool read_peers(struct arguments *arguments, struct race_request *request) {
    char *rest = (char *)(uintptr_t)arguments->value;
    while (rest != NULL) {
        const char *mistake = read_peer(request, strsep(&rest, ","));
        if (mistake != NULL) {
            arguments->exit_code = complain_usage(arguments->command, "--peer: %s", mistake);
            return false;
        }
    }
    return true;
}

static bool read_computes(struct arguments *arguments, struct race_request *request) {
    char *rest = (char *)(uintptr_t)arguments->value;
    while (rest != NULL) {
        const char *word = strsep(&rest, ",");
        unsigned bit;
        if (!parse_compute(word, &bit)) {
            arguments->exit_code = complain_usage(
                arguments->command, "--compute: '%s' is none of f32, f16, bf16, int8", word);
            return false;
        }
        request->computes |= bit;
    }
    return true;
}

bool race_request_read(struct arguments *arguments, int option, struct race_request *request) {
    request->wanted = true;
    switch (option) {
    case RACE_OPTION_LIMITS:
        return true;
    case RACE_OPTION_READ_MIB:
        return arguments_int(arguments, "read-mib", 1, READ_MIB_MOST, &request->read_mib);
    case RACE_OPTION_PEER:
        return read_peers(arguments, request);
    case RACE_OPTION_YARDSTICK:
        return request->yardstick = true;
    case RACE_OPTION_RANDOM_SHAPES:
        return arguments_int(arguments, "random-shapes", 1, RANDOM_MOST, &request->random_shapes);
    case RACE_OPTION_AWKWARD:
        return request->awkward = true;
    case RACE_OPTION_COMPUTE:
        return read_computes(arguments, request);
    case RACE_OPTION_THREADS:
        return arguments_int(arguments, "threads", 1, CREW_MOST, &request->threads);
    case RACE_OPTION_SCALING:
        return request->scaling = true;
    case RACE_OPTION_ROUNDS:
        return arguments_int(arguments, "rounds", 1, RACE_ROUNDS_MOST, &request->rounds);
    case RACE_OPTION_STORE:
        request->store = arguments->value;
        return true;
    case RACE_OPTION_PYTHON:
        request->python = arguments->value;
        return true;
    case RACE_OPTION_BENCH_DIR:
        request->bench_dir = arguments->value;
        return true;
    default:
        return arguments_int(arguments, "peer-timeout", 1, PEER_SECONDS_MOST,
                             &request->peer_seconds);
    }
}

/* ---- Python -------------------------------------------------------------------------- */

/** Where the scripts are: as asked, or beside this program in its install tree, or "". */
static void find_scripts(const struct race_request *request, char *out, size_t size) {
    char program[2048];
    out[0] = '\0';
    if (request->bench_dir != NULL) {
        snprintf(out, size, "%s", request->bench_dir);
        return;
    }
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (length < 0)
        return;
    program[length] = '\0';
    for (int up = 0; up < 2; up++) {
        char *slash = strrchr(program, '/');
        if (slash != NULL)
            *slash = '\0';
    }
    snprintf(out, size, "%s/share/kernelry/bench", program);
    if (access(out, R_OK | X_OK) != 0)
        out[0] = '\0';
}

static const char *find_python(const struct race_request *request) {
    const char *python =
        request->python != NULL ? request->python : getenv("KERNELRY_BENCH_PYTHON");
    return python != NULL && python[0] != '\0' ? python : "python3";
}

/* ---- the race ------------------------------------------------------------------------ */

/** A race and all that it holds. */
struct meeting {
    const struct race_request *request;
    struct race_setting setting;
    kry_device device;
    struct race_peer peers[RACE_PEERS_MOST];
    struct race_plan plan;
    struct race_rows rows;
    struct race_entry limit_entries[RACE_ENTRIES_MOST];
    struct race_row limits;
    char scripts[4096];
    double load;
};

static void meeting_release(struct meeting *meeting) {
    for (size_t i = 0; i < meeting->setting.peer_count; i++)
        peer_end(&meeting->peers[i].peer);
    peer_data_destroy(&meeting->setting.data);
    race_device_destroy(&meeting->setting.on_device);
    limits_destroy(&meeting->setting.pace.limits);
    crew_destroy(&meeting->setting.pace.crew);
    race_plan_free(&meeting->plan);
    race_rows_free(&meeting->rows);
    for (size_t i = 0; i < meeting->limits.count; i++)
        free(meeting->limit_entries[i].rounds);
    kry_registry_close(&meeting->setting.registry);
}

/** Start a peer in a process of its own. */
static void start_process(const struct meeting *meeting, struct race_peer *peer) {
    const struct race_request *request = meeting->request;
    const struct peer_command command = {.python = find_python(request),
                                         .folder = meeting->scripts,
                                         .library = peer->library,
                                         .compute = peer->compute,
                                         .threads = meeting->setting.threads,
                                         .timeout = request->peer_seconds * 1000000000};
    if (peer_start(&command, meeting->setting.data, &peer->peer) != KRY_OK)
        race_trouble(peer->trouble);
}

static void find_cublas(const struct meeting *meeting, struct race_peer *peer) {
    const char *trouble = "it multiplies on a CUDA device alone; name one with --device";
    if (meeting->setting.on_device != NULL)
        peer->cublas = race_device_cublas(meeting->setting.on_device, &trouble);
    if (peer->cublas == NULL)
        snprintf(peer->trouble, sizeof peer->trouble, "%s", trouble);
}

static int start_peers(struct meeting *meeting) {
    const struct race_request *request = meeting->request;
    struct race_setting *setting = &meeting->setting;
    memcpy(meeting->peers, request->peers, sizeof meeting->peers);
    setting->peers = meeting->peers;
    for (size_t i = 0; i < request->peer_count; i++) {
        struct race_peer *peer = &meeting->peers[i];
        bool process = strcmp(peer->library, CUBLAS) != 0;
        if (process && meeting->scripts[0] == '\0')
            return complain(EXIT_USAGE, "the scripts that drive peers are not beside this program; "
                                        "say where with --bench-dir");
        if (process && setting->data == NULL && peer_data_create(&setting->data) != KRY_OK)
            return complain_status(KRY_E_MEMORY);
        if (process)
            start_process(meeting, peer);
        else
            find_cublas(meeting, peer);
        setting->peer_count++;
        if (!race_peer_is_here(peer))
            warn("%s %s: %s", peer->library, peer->compute, peer->trouble);
    }
    return EXIT_YES;
}

static kry_status add_way(struct meeting *meeting, const struct limit *way) {
    struct race_row *row = &meeting->limits;
    double *rounds = calloc(meeting->setting.pace.rounds, sizeof *rounds);
    if (rounds == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    struct race_entry *entry = &row->entries[row->count++];
    *entry = (struct race_entry){.kind = RACE_LIMIT,
                                 .limit = way->kind,
                                 .way = way,
                                 .threads = meeting->setting.threads,
                                 .rounds = rounds};
    snprintf(entry->name, sizeof entry->name, "%s", way->name);
    return KRY_OK;
}

/** A limit of a device, as a loop. Where it cannot be measured, the entry has trouble. */
static kry_status add_device_limit(struct meeting *meeting, enum limit_kind kind) {
    struct race_row *row = &meeting->limits;
    struct race_entry *entry = &row->entries[row->count];
    *entry = (struct race_entry){.kind = RACE_LIMIT, .limit = kind};
    entry->rounds = calloc(meeting->setting.pace.rounds, sizeof *entry->rounds);
    if (entry->rounds == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    row->count++;
    struct race_device *device = meeting->setting.on_device;
    bool read = kind == LIMIT_READ;
    snprintf(entry->name, sizeof entry->name, "%s",
             read ? "a kernel that only reads" : "cuBLAS, 8192×8192×8192");
    kry_status status = read ? race_device_read(device, 0, &entry->loop, &entry->work)
                             : race_device_dense(device, &entry->loop, &entry->work);
    if (status != KRY_OK)
        race_trouble(entry->trouble);
    return KRY_OK;
}

static kry_status measure_device_limits(struct meeting *meeting) {
    struct race_row *row = &meeting->limits;
    row->entries = meeting->limit_entries;
    kry_status status = add_device_limit(meeting, LIMIT_READ);
    if (status == KRY_OK)
        status = add_device_limit(meeting, LIMIT_F16);
    if (status == KRY_OK)
        race_run(&meeting->setting.pace, 0, row->entries, row->count);
    for (size_t i = 0; i < row->count; i++)
        stream_loop_destroy(&row->entries[i].loop);
    return status;
}

/** Measure every way to a limit that this processor has, in turn. */
static kry_status measure_limits(struct meeting *meeting) {
    struct race_row *row = &meeting->limits;
    uint64_t features = limits_permitted(meeting->device.cpu_features);
    row->entries = meeting->limit_entries;
    kry_status status = KRY_OK;
    for (int kind = 0; kind < LIMIT_KINDS; kind++)
        for (size_t i = 0; limits_way(i) != NULL && status == KRY_OK; i++) {
            const struct limit *way = limits_way(i);
            if ((int)way->kind == kind && row->count < RACE_ENTRIES_MOST &&
                (way->cpu_features & features) == way->cpu_features)
                status = add_way(meeting, way);
        }
    if (status == KRY_OK)
        race_run(&meeting->setting.pace, 0, row->entries, row->count);
    return status;
}

/** Threads, and what they reach. */
static kry_status set_pace(struct meeting *meeting, int64_t nanoseconds) {
    const struct race_request *request = meeting->request;
    struct race_setting *setting = &meeting->setting;
    int64_t threads = request->threads > 0 ? request->threads : usable_cpus();
    setting->threads = (int32_t)(threads < CREW_MOST ? threads : CREW_MOST);
    bool cpu = strcmp(meeting->device.platform, "cpu") == 0;
    setting->scaling = request->scaling && cpu;
    setting->fill = cpu ? 0 : (uint64_t)request->read_mib << 20;
    setting->pace.rounds = (size_t)request->rounds;
    setting->pace.slice = nanoseconds / request->rounds + 1;
    kry_status status = crew_create(setting->threads, &setting->pace.crew);
    if (status == KRY_OK && !cpu) {
        status = race_device_create(setting->registry, &meeting->device, setting->fill,
                                    &setting->on_device);
        return status == KRY_OK ? measure_device_limits(meeting) : status;
    }
    if (status == KRY_OK)
        status = limits_create(setting->pace.crew, meeting->device.cpu_features,
                               (uint64_t)request->read_mib << 20, &setting->pace.limits);
    if (status == KRY_OK)
        status = measure_limits(meeting);
    return status;
}

static kry_status make_plan(struct meeting *meeting, const struct common_options *common,
                            const struct race_plan *given) {
    const struct race_request *request = meeting->request;
    const struct race_taste taste = {.computes = request->computes,
                                     .on_device = meeting->setting.on_device != NULL,
                                     .m = common->m,
                                     .m_count = common->m_count};
    struct race_plan *plan = &meeting->plan;
    /* Peers alone say nothing: without a layer they run on the yardstick. */
    bool nothing = given->count == 0 && request->random_shapes == 0;
    kry_status status = KRY_OK;
    if (request->yardstick || (nothing && request->peer_count > 0))
        status = race_plan_yardstick(plan, &taste);
    if (status == KRY_OK)
        status = race_plan_random(plan, &taste, request->random_shapes, common->seed);
    for (size_t i = 0; i < given->count && status == KRY_OK; i++) {
        const struct race_layer *layer = &given->layers[i];
        status = race_plan_add(plan, &taste, layer->name, &layer->linear, request->awkward);
    }
    return status;
}

static kry_status run_plan(struct meeting *meeting) {
    struct progress progress;
    progress_begin(&progress, meeting->plan.count);
    kry_status status = KRY_OK;
    for (size_t i = 0; i < meeting->plan.count && status == KRY_OK; i++) {
        progress_advance(&progress, 0, meeting->plan.layers[i].name);
        status = race_layer_run(&meeting->setting, &meeting->plan.layers[i], &meeting->rows);
        progress_advance(&progress, 1, meeting->plan.layers[i].name);
    }
    progress_clear(&progress);
    return status;
}

static int report(struct meeting *meeting, bool json) {
    struct race_report report = {.setting = &meeting->setting,
                                 .limits = &meeting->limits,
                                 .rows = &meeting->rows,
                                 .load = meeting->load};
    race_report_place(&report, meeting->scripts[0] != '\0' ? meeting->scripts : NULL);
    int code = EXIT_YES;
    if (json)
        code = json_print(race_report_json(&report));
    else if (!race_report_print(&report, stdout))
        code = complain(EXIT_MACHINE, "out of memory");
    if (code == EXIT_YES && meeting->request->store != NULL) {
        char plot[4096 + 16];
        snprintf(plot, sizeof plot, "%s/plot.py", meeting->scripts);
        code = race_report_store(&report, meeting->request->store, find_python(meeting->request),
                                 meeting->scripts[0] != '\0' ? plot : NULL);
    }
    return code;
}

/** EXIT_NO where none of our kernels has a figure. */
static int judge(const struct race_rows *rows) {
    for (size_t i = 0; i < rows->count; i++) {
        bool ran = false;
        for (size_t j = 0; j < rows->rows[i].count; j++) {
            const struct race_entry *entry = &rows->rows[i].entries[j];
            ran = ran || (entry->kind == RACE_KERNEL && entry->median > 0);
        }
        if (!ran)
            return EXIT_NO;
    }
    return EXIT_YES;
}

int bench_race(const struct common_options *common, const struct race_request *request,
               const struct race_plan *given, int64_t nanoseconds) {
    struct meeting *meeting = calloc(1, sizeof *meeting);
    if (meeting == NULL)
        return complain(EXIT_MACHINE, "out of memory");
    meeting->request = request;
    struct race_setting *setting = &meeting->setting;
    setting->device = &meeting->device;
    setting->kernel = common->kernel;
    setting->seed = common->seed;
    find_scripts(request, meeting->scripts, sizeof meeting->scripts);
    if (getloadavg(&meeting->load, 1) != 1)
        meeting->load = 0;
    if (meeting->load > LOAD_WARNING)
        warn("other processes keep this machine busy (load %.1f): the figures will be off",
             meeting->load);
    mute_log(true);
    int code = open_applying_registry(common, &setting->registry, &meeting->device);
    kry_status status = KRY_OK;
    if (code == EXIT_YES)
        status = set_pace(meeting, nanoseconds);
    if (code == EXIT_YES && status == KRY_OK)
        status = make_plan(meeting, common, given);
    if (code == EXIT_YES && status == KRY_OK)
        code = start_peers(meeting);
    if (code == EXIT_YES && status == KRY_OK)
        status = run_plan(meeting);
    if (code == EXIT_YES && status != KRY_OK)
        code = complain_status(status);
    mute_log(false);
    if (code == EXIT_YES)
        code = report(meeting, common->json);
    if (code == EXIT_YES)
        code = judge(&meeting->rows);
    meeting_release(meeting);
    free(meeting);
    return code;
}
