/*
 * kernelry new-plugin: a project with one kernel that builds and passes `kernelry verify` at once.
 *
 * The files are those of examples/, renamed: a word stands for the plugin's name, and of those for
 * GPUs the text is CUDA's, from which HIP's is made word by word. A line with `@cuda`, `@hip` or
 * `@both` says for whom the lines below it are.
 */
#include "atomic_file.h"
#include "command.h"
#include "embedded.h"
#include "folder.h"

#include <kernelry/plugin.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OPTION_CUDA = OPTION_OWN, OPTION_HIP };

static const struct own_option own[] = {
    {"cuda", NULL, "for NVIDIA: the kernel in CUDA, the host's side in C", OPTION_CUDA},
    {"hip", NULL, "for AMD: the kernel in HIP, the host's side in C", OPTION_HIP},
    {NULL, NULL, NULL, 0},
};

enum language { LANGUAGE_C, LANGUAGE_CUDA, LANGUAGE_HIP };

/* ---- words ------------------------------------------------------------------------------- */

static const char placeholder[] = "my_plugin";

struct word {
    const char *from, *to;
};

/* The first that fits is taken, so what is longer stands first. */
static const struct word hip_words[] = {
    {"\"cuda\"", "\"rocm\""},  {"cuda_runtime.h", "hip/hip_runtime.h"},
    {"__CUDACC__", "__HIP__"}, {"device.cu", "device.hip"},
    {"cuda", "hip"},           {"CUDA", "HIP"},
};

struct request {
    const struct common_options *common;
    const char *path; /* of the folder; its last part is the name */
    const char *name;
    enum language language;
};

/* Write text, its words replaced. */
static void write_words(FILE *out, const struct request *request, const char *text, size_t size) {
    const char *end = text + size;
    while (text < end) {
        struct word word = {NULL, NULL};
        if (strncmp(text, placeholder, sizeof placeholder - 1) == 0)
            word = (struct word){placeholder, request->name};
        for (size_t i = 0; i < sizeof hip_words / sizeof hip_words[0]; i++)
            if (word.from == NULL && request->language == LANGUAGE_HIP &&
                strncmp(text, hip_words[i].from, strlen(hip_words[i].from)) == 0)
                word = hip_words[i];
        if (word.from == NULL) {
            putc(*text++, out);
            continue;
        }
        fputs(word.to, out);
        text += strlen(word.from);
    }
}

/* Whether a line is one that says for whom the next ones are; then *shown tells whether they are
 * for the language. */
static bool is_mark(const char *line, size_t length, enum language language, bool *shown) {
    static const struct {
        const char *mark;
        int language; /* -1: any */
    } marks[] = {{"@cuda", LANGUAGE_CUDA}, {"@hip", LANGUAGE_HIP}, {"@both", -1}};
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++)
        if (memmem(line, length, marks[i].mark, strlen(marks[i].mark)) != NULL) {
            *shown = marks[i].language < 0 || marks[i].language == (int)language;
            return true;
        }
    return false;
}

static void write_lines(FILE *out, const struct request *request, const char *text) {
    bool shown = true;
    while (*text != '\0') {
        size_t length = strcspn(text, "\n");
        length += text[length] == '\n';
        if (!is_mark(text, length, request->language, &shown) && shown)
            write_words(out, request, text, length);
        text += length;
    }
}

/* ---- files ------------------------------------------------------------------------------- */

/* The text as it is written. Errors: KRY_E_MEMORY. */
static kry_status compose(const struct request *request, const char *text, char **out,
                          size_t *size) {
    FILE *stream = open_memstream(out, size);
    if (stream == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    write_lines(stream, request, text);
    bool bad = ferror(stream) != 0;
    bad = fclose(stream) != 0 || bad;
    return bad ? kry_error_set(KRY_E_MEMORY, "out of memory") : KRY_OK;
}

static kry_status write_file(const char *path, const char *text, size_t size) {
    int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file < 0)
        return kry_error_set(KRY_E_IO, "%s: cannot be made: %s", path, strerror(errno));
    kry_status status = write_fully(file, path, text, size);
    if (close(file) != 0 && status == KRY_OK) /* where a network's disk tells that it is full */
        status = kry_error_set(KRY_E_IO, "%s: cannot be written: %s", path, strerror(errno));
    return status;
}

static const struct embedded_file *files_of(enum language language) {
    return language == LANGUAGE_C ? plugin_files : plugin_gpu_files;
}

static kry_status write_one(const struct request *request, const char *folder,
                            const struct embedded_file *file) {
    struct embedded_file name = {.text = file->name, .size = strlen(file->name)};
    char *written_name = NULL, *text = NULL, path[PATH_MAX];
    size_t name_size = 0, size = 0;
    kry_status status = compose(request, name.text, &written_name, &name_size);
    if (status == KRY_OK)
        status = compose(request, file->text, &text, &size);
    if (status == KRY_OK)
        status = join_path(path, folder, written_name);
    if (status == KRY_OK)
        status = write_file(path, text, size);
    free(written_name);
    free(text);
    return status;
}

static kry_status write_project(const struct request *request) {
    struct new_folder folder;
    kry_status status = new_folder_begin(&folder, request->path);
    if (status != KRY_OK)
        return status;
    const struct embedded_file *file = files_of(request->language);
    for (; file->name != NULL && status == KRY_OK; file++)
        status = write_one(request, folder.temporary, file);
    return new_folder_end(&folder, status);
}

/* ---- the name ---------------------------------------------------------------------------- */

/* Targets that CMake makes itself. */
static bool is_reserved(const char *name) {
    static const char *const reserved[] = {"all",  "clean",         "edit_cache",
                                           "help", "install",       "package",
                                           "test", "rebuild_cache", "package_source"};
    for (size_t i = 0; i < sizeof reserved / sizeof reserved[0]; i++)
        if (strcmp(name, reserved[i]) == 0)
            return true;
    return false;
}

/* The last part of the path must be what KRY_PLUGIN takes, and what is no target of CMake's. */
static int check_name(const struct arguments *arguments, const char *name) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_";
    enum { LENGTH_MOST = sizeof((kry_note *)NULL)->name - 1 };
    size_t length = strlen(name), word = strspn(name, letters), all = word;
    while (name[all] != '\0' && strchr("0123456789", name[all]) != NULL)
        all += 1 + strspn(name + all + 1, letters);
    if (word == 0 || all != length)
        return complain_usage(arguments->command,
                              "'%s' is no name of a plugin: expected letters, digits and '_', not "
                              "a digit first",
                              name);
    if (length > LENGTH_MOST)
        return complain_usage(arguments->command,
                              "'%s' is no name of a plugin: it has %zu characters, expected at "
                              "most %d",
                              name, length, LENGTH_MOST);
    if (is_reserved(name))
        return complain_usage(arguments->command, "'%s' is a target of CMake's own: choose another",
                              name);
    return EXIT_YES;
}

/* ---- the command ------------------------------------------------------------------------- */

static int read_request(struct arguments *arguments, struct request *out) {
    *out = (struct request){.common = &arguments->common, .language = LANGUAGE_C};
    int option;
    while ((option = arguments_next(arguments)) != OPTION_END) {
        if (option == OPTION_STOP)
            return arguments->exit_code;
        if (out->language != LANGUAGE_C)
            return complain_usage(arguments->command, "--cuda and --hip: choose one");
        out->language = option == OPTION_CUDA ? LANGUAGE_CUDA : LANGUAGE_HIP;
    }
    if (arguments->operand_count != 1)
        return complain_usage(arguments->command, "expected one name, found %zu operands",
                              arguments->operand_count);
    const char *path = arguments->operands[0], *slash = strrchr(path, '/');
    out->path = path;
    out->name = slash != NULL ? slash + 1 : path;
    return check_name(arguments, out->name);
}

static int print_json(const struct request *request) {
    static const char *const languages[] = {"c", "cuda", "hip"};
    json_t *root = json_object(), *files = json_array();
    json_put(root, "plugin", json_text(request->name));
    json_put(root, "folder", json_text(request->path));
    json_put(root, "language", json_text(languages[request->language]));
    for (const struct embedded_file *file = files_of(request->language); file->name != NULL;
         file++) {
        char *name = NULL;
        size_t size = 0;
        if (compose(request, file->name, &name, &size) == KRY_OK)
            json_add(files, json_text(name));
        free(name);
    }
    json_put(root, "files", files);
    return json_print(root);
}

static void print_next(const struct request *request) {
    printf("%s: a plugin with one kernel. Build it and check it:\n\n"
           "  cd %s\n"
           "  cmake -B build && cmake --build build\n"
           "  ctest --test-dir build --output-on-failure\n\n"
           "CMake finds Kernelry where it is installed; elsewhere give it\n"
           "-DCMAKE_PREFIX_PATH=<install tree>.\n",
           request->path, request->path);
}

static int run(struct arguments *arguments) {
    struct request request;
    int code = read_request(arguments, &request);
    if (code != EXIT_YES || request.path == NULL)
        return code;
    kry_status status = write_project(&request);
    if (status != KRY_OK)
        return complain_status(status);
    if (request.common->json)
        return print_json(&request);
    print_next(&request);
    return EXIT_YES;
}

const struct command command_new_plugin = {
    .name = "new-plugin",
    .summary = "write a project for a plugin of one's own, which builds and passes at once",
    .usage = "NAME [--cuda | --hip]",
    .details =
        "Makes the folder NAME with a kernel in C, CUDA or HIP, a CMakeLists.txt and a test that\n"
        "runs `kernelry verify`. The kernel is right for 4-bit weights in bf16, of any shape, and\n"
        "slow; its comments say what each part is for. NAME may be a path: its last part names "
        "the\n"
        "plugin and its kernel (letters, digits and '_').\n"
        "\n"
        "The folder appears whole or not at all, and one that is there, unless it is empty, stays\n"
        "as it is.\n"
        "\n"
        "JSON: {plugin, folder, language: c|cuda|hip, files: [name]}.",
    .examples = "kernelry new-plugin fast_down\n"
                "kernelry new-plugin fast_down --cuda\n"
                "kernelry new-plugin work/fast_down --hip",
    .own = own,
    .run = run,
};
