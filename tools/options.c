/*
 * Options of the subcommands: the tables for getopt_long, the values, --help.
 */
#include "command.h"
#include "nearest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* getopt_long's values of the common options. */
enum {
    OPTION_HELP = 1000,
    OPTION_JSON,
    OPTION_PLUGIN_PATH,
    OPTION_RELAX_TRUST,
    OPTION_DEVICE,
    OPTION_KERNEL,
    OPTION_SHAPES,
    OPTION_NAME,
    OPTION_M,
    OPTION_SEED
};

static const struct common_option {
    struct own_option option;
    unsigned takes; /* 0: every subcommand */
} common_table[] = {
    {{"device", "DEVICE", "cpu, cuda, cuda:1, or hypothetical: cuda:sm_80, cpu:avx2",
      OPTION_DEVICE},
     TAKES_DEVICE},
    {{"kernel", "NAME", "this kernel alone, as KERNEL or PLUGIN/KERNEL", OPTION_KERNEL},
     TAKES_KERNEL},
    {{"shapes", "FILE", "layers from a file of shapes (JSON) instead of a model", OPTION_SHAPES},
     TAKES_SHAPES},
    {{"name", "NAME", "with --shapes: the shape of that name alone", OPTION_NAME}, TAKES_SHAPES},
    {{"m", "M,...", "rows of x (tokens), such as 1,7,64", OPTION_M}, TAKES_M},
    {{"seed", "N", "seed of random numbers; default 0", OPTION_SEED}, TAKES_SEED},
    {{"plugin-path", "PATH", "look in this folder, or load this file, first (repeatable)",
      OPTION_PLUGIN_PATH},
     TAKES_REGISTRY},
    {{"relax-trust", NULL, "load plugins that other users could have written", OPTION_RELAX_TRUST},
     TAKES_REGISTRY},
    {{"json", NULL, "print one JSON object", OPTION_JSON}, 0},
    {{"help", NULL, "print this help", OPTION_HELP}, 0},
};
enum {
    COMMON_COUNT = sizeof common_table / sizeof common_table[0],
    M_MOST = 4096,
    HELP_COLUMN = 24
};

static bool takes(const struct command *command, const struct common_option *option) {
    return !option->takes || command->takes & option->takes;
}

static size_t own_count(const struct command *command) {
    size_t count = 0;
    while (command->own && command->own[count].name)
        count++;
    return count;
}

static struct option getopt_entry(const struct own_option *option) {
    return (struct option){option->name, option->argument ? required_argument : no_argument, NULL,
                           option->value};
}

const struct own_option *command_option_at(const struct command *command, size_t i) {
    size_t own = own_count(command);
    if (i < own)
        return &command->own[i];
    for (size_t c = 0, taken = own; c < COMMON_COUNT; c++)
        if (takes(command, &common_table[c]) && taken++ == i)
            return &common_table[c].option;
    return NULL;
}

/* NULL when memory runs out. */
static struct option *make_table(const struct command *command) {
    struct option *table = calloc(own_count(command) + COMMON_COUNT + 1, sizeof *table);
    const struct own_option *option;
    for (size_t i = 0; table && (option = command_option_at(command, i)) != NULL; i++)
        table[i] = getopt_entry(option);
    return table;
}

/* ---- values -------------------------------------------------------------------------- */

bool parse_int(const char *text, int64_t least, int64_t most, int64_t *out) {
    /* strtoll would take leading blanks and a plus sign. */
    if (!(*text >= '0' && *text <= '9') && *text != '-')
        return false;
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno || end == text || *end || value < least || value > most)
        return false;
    *out = value;
    return true;
}

static int stop(struct arguments *arguments, int exit_code) {
    arguments->exit_code = exit_code;
    return OPTION_STOP;
}

bool arguments_int(struct arguments *arguments, const char *name, int64_t least, int64_t most,
                   int64_t *out) {
    if (parse_int(arguments->value, least, most, out))
        return true;
    arguments->exit_code =
        complain_usage(arguments->command, "--%s: '%s' is not a whole number from %lld to %lld",
                       name, arguments->value, (long long)least, (long long)most);
    return false;
}

static bool read_m(struct arguments *arguments) {
    size_t count = 1;
    for (const char *c = arguments->value; *c; c++)
        count += *c == ',';
    char *list = strdup(arguments->value);
    int64_t *values = count <= M_MOST ? malloc(count * sizeof *values) : NULL;
    bool good = list && values;
    char *rest = list;
    for (size_t i = 0; good && i < count; i++)
        good = parse_int(strsep(&rest, ","), 0, INT32_MAX, &values[i]);
    free(list);
    if (!good) {
        free(values);
        arguments->exit_code = complain_usage(
            arguments->command, "--m: '%s' is not a list of whole numbers, such as 1,7,64",
            arguments->value);
        return false;
    }
    free(arguments->m);
    arguments->common.m = arguments->m = values;
    arguments->common.m_count = count;
    return true;
}

static bool add_plugin_path(struct arguments *arguments) {
    struct common_options *common = &arguments->common;
    const char **grown =
        realloc(common->plugin_paths, (common->plugin_path_count + 1) * sizeof *grown);
    if (!grown) {
        arguments->exit_code = complain(EXIT_MACHINE, "out of memory");
        return false;
    }
    common->plugin_paths = grown;
    grown[common->plugin_path_count++] = arguments->value;
    return true;
}

/* Store a common option. Returns false when the subcommand ends here. */
static bool store_common(struct arguments *arguments, int option) {
    struct common_options *common = &arguments->common;
    int64_t seed;
    switch (option) {
    case OPTION_HELP:
        command_print_help(arguments->command, stdout);
        arguments->exit_code = EXIT_YES;
        return false;
    case OPTION_JSON:
        common->json = true;
        return true;
    case OPTION_RELAX_TRUST:
        common->relax_trust = true;
        return true;
    case OPTION_DEVICE:
        common->device = arguments->value;
        return true;
    case OPTION_KERNEL:
        common->kernel = arguments->value;
        return true;
    case OPTION_SHAPES:
        common->shapes = arguments->value;
        return true;
    case OPTION_NAME:
        common->shape_name = arguments->value;
        return true;
    case OPTION_M:
        return read_m(arguments);
    case OPTION_PLUGIN_PATH:
        return add_plugin_path(arguments);
    default: /* OPTION_SEED */
        if (!arguments_int(arguments, "seed", 0, INT64_MAX, &seed))
            return false;
        common->seed = (uint64_t)seed;
        return true;
    }
}

/* ---- reading ------------------------------------------------------------------------- */

static const char *option_name(const struct arguments *arguments, int value) {
    for (const struct option *entry = arguments->table; entry->name; entry++)
        if (entry->val == value)
            return entry->name;
    return "?";
}

static int refuse_unknown(struct arguments *arguments, const char *given) {
    const char *name = given + strspn(given, "-");
    struct nearest nearest = nearest_begin(name, strcspn(name, "="));
    for (const struct option *entry = arguments->table; entry->name; entry++)
        nearest_offer(&nearest, entry->name);
    if (nearest.best)
        return stop(arguments,
                    complain_usage(arguments->command, "unknown option '%s'; did you mean '--%s'?",
                                   given, nearest.best));
    return stop(arguments, complain_usage(arguments->command, "unknown option '%s'", given));
}

int arguments_next(struct arguments *arguments) {
    for (;;) {
        int before = optind ? optind : 1;
        int option = getopt_long(arguments->argc, arguments->argv, ":h", arguments->table, NULL);
        arguments->value = optarg;
        if (option == -1)
            break;
        if (option == ':')
            return stop(arguments, complain_usage(arguments->command, "--%s needs a value",
                                                  option_name(arguments, optopt)));
        if (option == '?' && optopt >= OPTION_HELP)
            return stop(arguments, complain_usage(arguments->command, "--%s takes no value",
                                                  option_name(arguments, optopt)));
        if (option == '?')
            /* A cluster of short options is not left behind before its last one. */
            return refuse_unknown(arguments,
                                  arguments->argv[optind > before ? optind - 1 : optind]);
        if (option >= OPTION_OWN)
            return option;
        if (!store_common(arguments, option == 'h' ? OPTION_HELP : option))
            return OPTION_STOP;
    }
    arguments->operands = arguments->argv + optind;
    arguments->operand_count = (size_t)(arguments->argc - optind);
    return OPTION_END;
}

int command_execute(const struct command *command, int argc, char **argv) {
    struct arguments arguments = {
        .command = command, .argc = argc, .argv = argv, .table = make_table(command)};
    arguments.common.device = "cpu";
    if (!arguments.table)
        return complain(EXIT_MACHINE, "out of memory");
    optind = 0; /* glibc: begin anew */
    opterr = 0;
    int code = command->run(&arguments);
    free(arguments.common.plugin_paths);
    free(arguments.table);
    free(arguments.m);
    return code;
}

/* ---- help ---------------------------------------------------------------------------- */

static void print_option(FILE *out, const struct own_option *option) {
    char left[64];
    snprintf(left, sizeof left, "--%s%s%s", option->name, option->argument ? " " : "",
             option->argument ? option->argument : "");
    fprintf(out, "  %-*s  %s\n", HELP_COLUMN, left, option->help);
}

/* Each line of text behind what leads the first one, and as many blanks. */
static void print_indented(FILE *out, const char *lead, const char *blank, const char *text) {
    while (*text) {
        size_t length = strcspn(text, "\n");
        fprintf(out, "%s%.*s\n", lead, (int)length, text);
        text += length + (text[length] == '\n');
        lead = blank;
    }
}

void command_print_help(const struct command *command, FILE *out) {
    char lead[64], blank[64];
    snprintf(lead, sizeof lead, "Usage: kernelry %s ", command->name);
    snprintf(blank, sizeof blank, "       kernelry %s ", command->name);
    print_indented(out, lead, blank, command->usage);
    fprintf(out, "\n%s\n\nOptions\n", command->details);
    const struct own_option *option;
    for (size_t i = 0; (option = command_option_at(command, i)) != NULL; i++)
        print_option(out, option);
    fputs("\nExamples\n", out);
    print_indented(out, "  ", "  ", command->examples);
    fputs("\nExit status: 0 yes, 1 no, 2 usage, 3 bad input, 4 the machine.\n", out);
}
