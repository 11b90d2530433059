#include "fixture.h"

#include "../../tools/remove_tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <kernelry/plugin.h>

/* ---- files ------------------------------------------------------------------------------ */

static char *next_buffer(void) {
    static _Thread_local char buffers[8][FIXTURE_PATH];
    static _Thread_local unsigned next;
    return buffers[next++ % 8];
}

const char *path_in(const char *folder, const char *name) {
    char *path = next_buffer();
    assert_in_range(snprintf(path, FIXTURE_PATH, "%s/%s", folder, name), 1, FIXTURE_PATH - 1);
    return path;
}

const char *mock_path(const char *name) {
    const char *folder = getenv("LOADER_MOCKS");
    return path_in(folder != NULL ? folder : LOADER_MOCKS, name);
}

uint32_t mocks_minor(void) {
    const char *minor = getenv("LOADER_MOCKS_MINOR");
    return minor != NULL ? (uint32_t)atoi(minor) : KRY_ABI_MINOR;
}

static char scratch_root[FIXTURE_PATH];

static void remove_scratch(void) { remove_tree(scratch_root); }

const char *scratch_folder(void) {
    static char folders[64][FIXTURE_PATH];
    static unsigned count;
    if (scratch_root[0] == '\0') {
        snprintf(scratch_root, sizeof scratch_root, "%s/scratch.XXXXXX", LOADER_SCRATCH);
        assert_non_null(mkdtemp(scratch_root));
        atexit(remove_scratch);
    }
    assert_in_range(count, 0, 63);
    char *folder = folders[count];
    assert_in_range(snprintf(folder, FIXTURE_PATH, "%.900s/%u", scratch_root, count), 1,
                    FIXTURE_PATH - 1);
    count++;
    assert_int_equal(mkdir(folder, 0700), 0);
    return folder;
}

content read_file(const char *path) {
    content file = {NULL, 0};
    FILE *stream = fopen(path, "rb");
    assert_non_null(stream);
    assert_int_equal(fseek(stream, 0, SEEK_END), 0);
    file.size = (size_t)ftell(stream);
    rewind(stream);
    file.bytes = malloc(file.size + 1);
    assert_non_null(file.bytes);
    assert_int_equal(fread(file.bytes, 1, file.size, stream), file.size);
    fclose(stream);
    return file;
}

/* Always a new inode: an old one may be mapped by a plugin that is loaded. */
void write_file(const char *path, const void *bytes, size_t size) {
    unlink(path);
    FILE *stream = fopen(path, "wb");
    assert_non_null(stream);
    assert_int_equal(fwrite(bytes, 1, size, stream), size);
    assert_int_equal(fclose(stream), 0);
    assert_int_equal(chmod(path, 0755), 0);
}

void copy_file(const char *from, const char *to) {
    content file = read_file(from);
    write_file(to, file.bytes, file.size);
    free(file.bytes);
}

size_t find_note(const content *file) {
    const uint32_t head[3] = {sizeof KRY_NOTE_OWNER, sizeof(kry_note), KRY_NOTE_TYPE};
    for (size_t at = 0; at + sizeof(kry_elf_note) <= file->size; at += 4)
        if (memcmp(file->bytes + at, head, sizeof head) == 0 &&
            memcmp(file->bytes + at + sizeof head, KRY_NOTE_OWNER, sizeof KRY_NOTE_OWNER) == 0)
            return at + offsetof(kry_elf_note, note);
    fail_msg("no note in the file");
    return 0;
}

/* ---- registries -------------------------------------------------------------------------- */

void log_init(log_lines *log) {
    memset(log, 0, sizeof *log);
    pthread_mutex_init(&log->lock, NULL);
}

void log_line(void *context, int32_t level, const char *message) {
    log_lines *log = context;
    pthread_mutex_lock(&log->lock);
    size_t space = sizeof log->text - log->length;
    int length = snprintf(log->text + log->length, space, "%d %s\n", level, message);
    if (length > 0 && (size_t)length < space)
        log->length += (size_t)length;
    log->warnings += level == KRY_LOG_WARNING;
    pthread_mutex_unlock(&log->lock);
}

kry_registry_options closed_options(const char *const *paths, size_t count) {
    kry_registry_options options = KRY_INIT(kry_registry_options);
    options.plugin_paths = paths;
    options.plugin_path_count = count;
    options.flags = KRY_REGISTRY_NO_DEFAULT_DIR | KRY_REGISTRY_NO_ENVIRONMENT;
    return options;
}

kry_registry *open_options(kry_registry_options options, log_lines *log) {
    kry_host host = KRY_INIT(kry_host);
    host.context = log;
    host.log = log_line;
    if (log != NULL && options.host == NULL)
        options.host = &host;
    kry_registry *registry = NULL;
    kry_status status = kry_registry_open(&options, &registry);
    if (status != KRY_OK)
        fail_msg("kry_registry_open: %s", kry_error_message());
    assert_non_null(registry);
    return registry;
}

kry_registry *open_mocks(log_lines *log, ...) {
    char paths[16][FIXTURE_PATH];
    const char *list[16];
    size_t count = 0;
    va_list names;
    va_start(names, log);
    for (const char *name = va_arg(names, const char *); name != NULL;
         name = va_arg(names, const char *)) {
        assert_in_range(count, 0, 15);
        snprintf(paths[count], sizeof paths[count], "%s", mock_path(name));
        list[count] = paths[count];
        count++;
    }
    va_end(names);
    return open_options(closed_options(list, count), log);
}

bool find_plugin(const kry_registry *registry, const char *name_or_path, kry_plugin_info *out) {
    for (size_t i = 0; i < kry_registry_plugin_count(registry); i++) {
        *out = KRY_INIT(kry_plugin_info);
        assert_int_equal(kry_registry_plugin(registry, i, out), KRY_OK);
        const char *base = strrchr(out->path, '/');
        if (strcmp(out->name, name_or_path) == 0 || strcmp(out->path, name_or_path) == 0 ||
            (base != NULL && strcmp(base + 1, name_or_path) == 0))
            return true;
    }
    return false;
}

void examine_file(const char *path, kry_plugin_info *out) {
    static char texts[4][FIXTURE_PATH];
    kry_registry *registry = open_options(closed_options(&path, 1), NULL);
    assert_int_equal(kry_registry_plugin_count(registry), 1);
    *out = KRY_INIT(kry_plugin_info);
    assert_int_equal(kry_registry_plugin(registry, 0, out), KRY_OK);
    const char **fields[4] = {&out->path, &out->name, &out->version, &out->reason};
    for (int i = 0; i < 4; i++) {
        snprintf(texts[i], sizeof texts[i], "%s", *fields[i]);
        *fields[i] = texts[i];
    }
    kry_registry_close(&registry);
}

const char *kernel_order(const kry_registry *registry, const char *platform) {
    char *order = next_buffer();
    size_t length = 0;
    order[0] = '\0';
    for (size_t i = 0; i < kry_registry_kernel_count(registry, platform); i++) {
        kry_kernel_info info = KRY_INIT(kry_kernel_info);
        assert_int_equal(kry_registry_kernel(registry, platform, i, &info), KRY_OK);
        length += (size_t)snprintf(order + length, FIXTURE_PATH - length, "%s%s", i > 0 ? " " : "",
                                   info.kernel);
        assert_in_range(length, 1, FIXTURE_PATH - 1);
    }
    return order;
}

kry_device find_device(const kry_registry *registry, const char *name) {
    kry_device device = KRY_INIT(kry_device);
    if (kry_registry_find_device(registry, name, &device) != KRY_OK)
        fail_msg("%s", kry_error_message());
    return device;
}

/* ---- decisions --------------------------------------------------------------------------- */

kry_linear describe(int64_t in_features, int64_t out_features, int64_t group_size,
                    uint32_t weight_type, uint32_t type) {
    kry_linear linear = KRY_INIT(kry_linear);
    linear.in_features = in_features;
    linear.out_features = out_features;
    linear.group_size = group_size;
    linear.weight_type = weight_type;
    linear.x_type = type;
    return linear;
}

kry_decision *decide(const kry_registry *registry, const char *device, const kry_linear *linear) {
    kry_device found = find_device(registry, device);
    kry_decision *decision = NULL;
    if (kry_decide(registry, &found, linear, &decision) != KRY_OK)
        fail_msg("kry_decide: %s", kry_error_message());
    return decision;
}

const char *chosen(const kry_decision *decision) {
    kry_decision_info info = KRY_INIT(kry_decision_info);
    assert_int_equal(kry_decision_describe(decision, &info), KRY_OK);
    if (info.chosen < 0)
        return "none";
    kry_candidate candidate = KRY_INIT(kry_candidate);
    assert_int_equal(kry_decision_candidate(decision, (size_t)info.chosen, &candidate), KRY_OK);
    assert_int_equal(candidate.verdict, KRY_VERDICT_CHOSEN);
    return candidate.kernel;
}

kry_candidate candidate_of(const kry_decision *decision, const char *kernel) {
    kry_candidate candidate = KRY_INIT(kry_candidate);
    for (size_t i = 0; kry_decision_candidate(decision, i, &candidate) == KRY_OK; i++) {
        if (strcmp(candidate.kernel, kernel) == 0)
            return candidate;
        candidate = KRY_INIT(kry_candidate);
    }
    fail_msg("no candidate %s", kernel);
    return candidate;
}
