/*
 * The kernelry command: what its subcommands share.
 *
 * Exit codes, the same for every subcommand:
 *   0  yes: done, and nothing to complain of
 *   1  no: it ran, and the answer is no (a layer without a kernel, a wrong number, a plugin
 *      named outright that was refused)
 *   2  usage: an option or argument is wrong
 *   3  input: a file is missing, unreadable, damaged or not supported
 *   4  the machine: out of memory, a device that is absent or fails, a disk that is full
 *
 * What was asked for goes to standard output; everything else (errors, warnings, progress)
 * to standard error. With --json, standard output holds one JSON object and nothing else.
 *
 * A subcommand looks like this:
 *
 *     static int run(struct arguments *arguments) {
 *         bool all = false;
 *         int option;
 *         while ((option = arguments_next(arguments)) != OPTION_END) {
 *             if (option == OPTION_STOP)
 *                 return arguments->exit_code;
 *             all = true;                            // the only one of its own
 *         }
 *         ...arguments->common, arguments->operands, arguments->operand_count...
 *     }
 *     const struct command command_plugins = {.name = "plugins", ..., .run = run};
 */
#ifndef KERNELRY_COMMAND_H
#define KERNELRY_COMMAND_H

#include <kernelry/kernelry.h>

#include <getopt.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

enum { EXIT_YES = 0, EXIT_NO = 1, EXIT_USAGE = 2, EXIT_INPUT = 3, EXIT_MACHINE = 4 };

/* ---- subcommands --------------------------------------------------------------------- */

struct arguments;

/** An option of one subcommand: read by getopt_long and shown by --help. */
struct own_option {
    const char *name;     /* "tp" for --tp; NULL ends the list */
    const char *argument; /* "N", or NULL when it takes none */
    const char *help;     /* one line, at most about 60 columns */
    int value;            /* what arguments_next returns: OPTION_OWN or above */
};

/** A subcommand. */
struct command {
    const char *name;
    const char *summary;          /* one line for `kernelry --help` */
    const char *usage;            /* what follows "kernelry NAME", one form a line */
    const char *details;          /* paragraphs for --help, folded by hand at 80 columns */
    const char *examples;         /* one a line, each a whole command */
    const struct own_option *own; /* NULL: none */
    unsigned takes;               /* TAKES_* */
    int (*run)(struct arguments *arguments); /* returns an exit code */
};

extern const struct command command_plugins, command_devices, command_explain, command_check,
    command_run, command_prepare, command_quantize, command_bench, command_verify,
    command_new_plugin, command_version;

/** Options that several subcommands take; --json, --help go without saying. */
enum {
    TAKES_REGISTRY = 1, /* --plugin-path, --relax-trust */
    TAKES_DEVICE = 2,   /* --device */
    TAKES_KERNEL = 4,   /* --kernel */
    TAKES_SHAPES = 8,   /* --shapes, --name */
    TAKES_M = 16,       /* --m */
    TAKES_SEED = 32     /* --seed */
};

/** The values of those options. */
struct common_options {
    const char *device;        /* --device NAME; "cpu" */
    const char *kernel;        /* --kernel NAME, or NULL */
    const char *shapes;        /* --shapes FILE, or NULL */
    const char *shape_name;    /* --name NAME: that shape of the file alone, or NULL */
    const char **plugin_paths; /* --plugin-path P, repeated */
    size_t plugin_path_count;
    const int64_t *m; /* --m 1,7,64; each at least 0. NULL: not given */
    size_t m_count;
    uint64_t seed; /* --seed N; 0 */
    bool json;
    bool relax_trust;
    bool probe;                  /* plugins --probe */
    uint32_t probe_milliseconds; /* 0: the library's limit */
};

/** What arguments_next returns besides a subcommand's own values. */
enum {
    OPTION_END = 0,   /* all options are read; operands are set */
    OPTION_STOP = -1, /* help was printed or an error reported: return exit_code */
    OPTION_OWN = 2000 /* the first of a subcommand's own values */
};

/** The arguments of a subcommand; main makes them and frees what they hold. */
struct arguments {
    const struct command *command;
    struct common_options common;
    const char *value; /* of the option just returned, or NULL */
    char **operands;   /* after OPTION_END: what is no option, in order */
    size_t operand_count;
    int exit_code; /* after OPTION_STOP */

    /* For arguments_next alone. */
    int argc;
    char **argv; /* argv[0] is the subcommand's name */
    struct option *table;
    int64_t *m;
};

/** Read options up to the next one of the subcommand's own; common ones are stored. */
int arguments_next(struct arguments *arguments);

/** Run a subcommand: make its arguments, call it, free them. Returns the exit code. */
int command_execute(const struct command *command, int argc, char **argv);

/** The i-th option that a subcommand takes, its own before those that it shares; NULL past the
 * last. */
const struct own_option *command_option_at(const struct command *command, size_t i);

/** Print --help of a subcommand. */
void command_print_help(const struct command *command, FILE *out);

/* ---- errors -------------------------------------------------------------------------- */

/** Print "kernelry: " and a sentence to standard error. Returns exit_code. */
int complain(int exit_code, const char *format, ...) KRY_PRINTF(2, 3);

/** Print "kernelry: warning: " and a sentence to standard error. */
void warn(const char *format, ...) KRY_PRINTF(1, 2);

/** Complain of a wrong option or argument and point at --help. Returns EXIT_USAGE. */
int complain_usage(const struct command *command, const char *format, ...) KRY_PRINTF(2, 3);

/** Complain with kry_error_message(), the sentence of the call that just failed with status.
 *  Returns its exit code. */
int complain_status(kry_status status);

/** The exit code of a status: EXIT_YES for KRY_OK. */
int exit_code_of(kry_status status);

/** A log callback (kry_host.log, kry_checkpoint_options.log) that prints warnings and errors
 *  to standard error. The context is not read. */
void log_to_stderr(void *context, int32_t level, const char *message);

/** Drop log lines from now on, or print them again: for a subcommand that shows the same
 *  things itself, such as slow paths. */
void mute_log(bool muted);

/* ---- numbers ------------------------------------------------------------------------- */

/** Read a decimal integer that fills all of text and lies in [least, most]. */
bool parse_int(const char *text, int64_t least, int64_t most, int64_t *out);

/** Read the integer value of the option just returned, or complain and return false (then
 *  return arguments->exit_code). `name` is the option's, for the message. */
bool arguments_int(struct arguments *arguments, const char *name, int64_t least, int64_t most,
                   int64_t *out);

/* ---- the registry and a device ------------------------------------------------------- */

/** Open the registry that the options ask for, its log lines going to standard error. Returns
 *  an exit code; EXIT_YES: *out is open. */
int open_registry(const struct common_options *common, kry_registry **out);

/** Find the device that --device names; what is wrong has been complained of. Returns an exit
 *  code. */
int find_device(const kry_registry *registry, const struct common_options *common, kry_device *out);

/** Say so when no kernel is registered for the device's platform: 'no plugin serves platform
 *  "cuda"', as JSON {"platform", "error", "ok": false}. Returns EXIT_NO then, else EXIT_YES. */
int require_platform(const kry_registry *registry, const kry_device *device, bool json);

/* ---- output -------------------------------------------------------------------------- */

/**
 * Put value (a new reference, taken) into object under key. Out of memory is remembered and
 * reported by json_print, so callers need not check.
 */
void json_put(json_t *object, const char *key, json_t *value);
/** Append likewise. */
void json_add(json_t *array, json_t *value);
/** A JSON string of any bytes: what is not UTF-8 becomes U+FFFD. NULL text: null. */
json_t *json_text(const char *text);
/** Print object (its reference is taken), indented, on standard output. Returns EXIT_YES, or
 *  complains and returns EXIT_MACHINE when some of it could not be made. */
int json_print(json_t *object);

/** Flush standard output; a failure is complained of unless the reader has gone (EPIPE).
 *  Returns code, or EXIT_MACHINE on failure. main calls it at the end. */
int finish_output(int code);

#endif
