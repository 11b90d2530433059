/*
 * What every subcommand does alike: errors, the registry, JSON, the end of the output.
 */
#include "command.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- errors -------------------------------------------------------------------------- */

/* One line after another, each with the prefix. What is printed may quote a file's contents:
 * control characters must not reach a terminal. */
static void print_lines(const char *prefix, const char *text) {
    fflush(stdout); /* keep the order where both go to one place */
    fputs(prefix, stderr);
    for (const char *c = text; *c; c++) {
        bool control = (unsigned char)*c < 0x20 || *c == 0x7f;
        if (*c == '\n' && c[1])
            fputs("\n  ", stderr);
        else if (*c != '\n')
            putc(control ? '?' : *c, stderr);
    }
    putc('\n', stderr);
}

static void print_formatted(const char *prefix, const char *format, va_list arguments) {
    char *text = NULL;
    if (vasprintf(&text, format, arguments) < 0)
        text = NULL;
    print_lines(prefix, text ? text : "out of memory");
    free(text);
}

int complain(int exit_code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    print_formatted("kernelry: ", format, arguments);
    va_end(arguments);
    return exit_code;
}

void warn(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    print_formatted("kernelry: warning: ", format, arguments);
    va_end(arguments);
}

int complain_usage(const struct command *command, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    print_formatted("kernelry: ", format, arguments);
    va_end(arguments);
    fprintf(stderr, "Try 'kernelry %s --help'.\n", command->name);
    return EXIT_USAGE;
}

int exit_code_of(kry_status status) {
    switch (status) {
    case KRY_OK:
        return EXIT_YES;
    case KRY_E_ARGUMENT:
        return EXIT_USAGE;
    case KRY_E_IO:
    case KRY_E_FORMAT:
    case KRY_E_UNSUPPORTED:
    case KRY_E_NOT_FOUND:
    case KRY_E_FOREIGN:
    case KRY_E_STALE:
        return EXIT_INPUT;
    case KRY_E_NO_KERNEL:
    case KRY_E_ABI:
    case KRY_E_TRUST:
    case KRY_E_PLUGIN:
        return EXIT_NO;
    default:
        return EXIT_MACHINE;
    }
}

int complain_status(kry_status status) {
    const char *message = kry_error_message();
    return complain(exit_code_of(status), "%s", message[0] ? message : kry_status_string(status));
}

static bool log_muted;

void mute_log(bool muted) { log_muted = muted; }

void log_to_stderr(void *context, int32_t level, const char *message) {
    (void)context;
    if (level > KRY_LOG_WARNING || log_muted)
        return;
    print_lines(level == KRY_LOG_WARNING ? "kernelry: warning: " : "kernelry: ", message);
}

/* ---- the registry and a device ------------------------------------------------------- */

int open_registry(const struct common_options *common, kry_registry **out) {
    kry_host host = KRY_INIT(kry_host);
    /* With KERNELRY_LOG the library prints to standard error itself; once is enough. */
    const char *level = secure_getenv("KERNELRY_LOG");
    host.log = level && *level ? NULL : log_to_stderr;
    kry_registry_options options = KRY_INIT(kry_registry_options);
    options.plugin_paths = common->plugin_paths;
    options.plugin_path_count = common->plugin_path_count;
    options.host = &host;
    options.flags = (common->relax_trust ? KRY_REGISTRY_RELAX_TRUST : 0) |
                    (common->probe ? KRY_REGISTRY_PROBE : 0);
    options.probe_milliseconds = common->probe_milliseconds;
    kry_status status = kry_registry_open(&options, out);
    return status ? complain_status(status) : EXIT_YES;
}

/* The answer of a subcommand that asks a platform which nobody serves. */
static int answer_unserved(const char *platform, bool json) {
    if (!json)
        return complain(EXIT_NO, "no plugin serves platform \"%s\"", platform);
    json_t *root = json_object();
    json_put(root, "platform", json_text(platform));
    json_put(root, "error", json_sprintf("no plugin serves platform \"%s\"", platform));
    json_put(root, "ok", json_false());
    int code = json_print(root);
    return code ? code : EXIT_NO;
}

int find_device(const kry_registry *registry, const struct common_options *common,
                kry_device *out) {
    *out = KRY_INIT(kry_device);
    kry_status status = kry_registry_find_device(registry, common->device, out);
    if (status != KRY_E_NOT_FOUND)
        return status ? complain_status(status) : EXIT_YES;
    /* A device that is not here, or a platform that nobody serves? */
    char platform[sizeof out->platform] = "";
    size_t length = strcspn(common->device, ":");
    if (length < sizeof platform)
        memcpy(platform, common->device, length);
    if (platform[0] && !kry_registry_kernel_count(registry, platform))
        return answer_unserved(platform, common->json);
    return complain(EXIT_MACHINE, "%s", kry_error_message());
}

int require_platform(const kry_registry *registry, const kry_device *device, bool json) {
    return kry_registry_kernel_count(registry, device->platform)
               ? EXIT_YES
               : answer_unserved(device->platform, json);
}

/* ---- output -------------------------------------------------------------------------- */

static bool json_incomplete;

void json_put(json_t *object, const char *key, json_t *value) {
    if (json_object_set_new(object, key, value))
        json_incomplete = true;
}

void json_add(json_t *array, json_t *value) {
    if (json_array_append_new(array, value))
        json_incomplete = true;
}

/* The bytes of the UTF-8 sequence at text, 0 when it is none. jansson has the last word on
 * what it takes (surrogates, overlong forms). */
static size_t sequence_bytes(const char *text) {
    unsigned char first = (unsigned char)text[0];
    size_t bytes = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    for (size_t i = 1; i < bytes; i++)
        if (((unsigned char)text[i] & 0xc0) != 0x80)
            return 0;
    json_t *accepted = bytes > 1 ? json_stringn(text, bytes) : NULL;
    if (bytes > 1 && !accepted)
        return 0;
    json_decref(accepted);
    return bytes;
}

json_t *json_text(const char *text) {
    if (!text)
        return json_null();
    json_t *string = json_string(text);
    if (string)
        return string;
    char *repaired = malloc(3 * strlen(text) + 1);
    if (!repaired)
        return NULL;
    size_t length = 0;
    for (const char *at = text; *at;) {
        size_t bytes = sequence_bytes(at);
        memcpy(repaired + length, bytes ? at : "\xef\xbf\xbd", bytes ? bytes : 3);
        length += bytes ? bytes : 3;
        at += bytes ? bytes : 1;
    }
    string = json_stringn(repaired, length);
    free(repaired);
    return string;
}

int json_print(json_t *object) {
    int code = EXIT_YES;
    if (!object || json_incomplete || json_dumpf(object, stdout, JSON_INDENT(2))) {
        /* A failed write is told by finish_output. */
        if (!ferror(stdout))
            code = complain(EXIT_MACHINE, "out of memory while writing JSON");
    } else {
        putchar('\n');
    }
    json_incomplete = false;
    json_decref(object);
    return code;
}

int finish_output(int code) {
    int flushed = fflush(stdout);
    int error = errno;
    if (!flushed && !ferror(stdout))
        return code;
    /* A reader that has gone, such as `head`, wants no message. The write that failed may have
     * been an earlier one, so errno alone does not tell. */
    struct pollfd pipe_end = {.fd = STDOUT_FILENO, .events = POLLOUT};
    bool reader_gone = poll(&pipe_end, 1, 0) == 1 && pipe_end.revents & POLLERR;
    if (!reader_gone)
        complain(EXIT_MACHINE, "standard output could not be written: %s",
                 flushed ? strerror(error) : "some of it is lost");
    return EXIT_MACHINE;
}
