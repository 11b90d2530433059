/*
 * The kernelry command: what its subcommands share.
 *
 * Exit codes, the same for every subcommand:
 *   0  yes: done, and nothing to complain of
 *   1  no: it ran, and the answer is no (a layer without a kernel, a wrong number, a plugin
 *      named outright that was refused)
 *   2  usage: an option or argument is wrong
 *   3  input: a file is missing, unreadable, damaged or not supported
 *   4  the machine: out of memory, a device that fails, a disk that is full
 */
#ifndef KERNELRY_COMMAND_H
#define KERNELRY_COMMAND_H

#include <kernelry/kernelry.h>

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

enum { EXIT_YES = 0, EXIT_NO = 1, EXIT_USAGE = 2, EXIT_INPUT = 3, EXIT_MACHINE = 4 };

/** A subcommand: argv[0] is its own name. */
struct command {
    const char *name;
    const char *summary;            /* one line for `kernelry --help` */
    int (*run)(int argc, char **argv);
};

extern const struct command command_plugins, command_devices, command_explain, command_check,
    command_run, command_quantize, command_bench, command_version;

/** Options that several subcommands take; each subcommand says which. */
struct common_options {
    const char *device;        /* --device NAME; "cpu" */
    const char *kernel;        /* --kernel NAME, or NULL */
    const char *shapes;        /* --shapes FILE, or NULL */
    const char **plugin_paths; /* --plugin-path P, repeated */
    size_t plugin_path_count;
    int64_t *m;                /* --m 1,7,64 */
    size_t m_count;
    uint64_t seed;             /* --seed N */
    bool json;                 /* --json */
    bool relax_trust;          /* --relax-trust */
};

enum {
    TAKES_DEVICE = 1,
    TAKES_KERNEL = 2,
    TAKES_SHAPES = 4,
    TAKES_M = 8,
    TAKES_SEED = 16
};

/** getopt_long values of the common options; a subcommand's own start at OPTION_OWN. */
enum {
    OPTION_HELP = 1000,
    OPTION_JSON,
    OPTION_PLUGIN_PATH,
    OPTION_RELAX_TRUST,
    OPTION_DEVICE,
    OPTION_KERNEL,
    OPTION_SHAPES,
    OPTION_M,
    OPTION_SEED,
    OPTION_OWN
};
