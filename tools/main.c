/*
 * kernelry: choose the subcommand.
 */
#include "command.h"
#include "nearest.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct command *const commands[] = {
    &command_check,    &command_explain, &command_run,     &command_prepare, &command_bench,
    &command_quantize, &command_verify,  &command_plugins, &command_devices, &command_version,
};
enum { COMMAND_COUNT = sizeof commands / sizeof commands[0] };

static void print_help(FILE *out) {
    fputs("Usage: kernelry COMMAND [argument]...\n"
          "\n"
          "Quantized linear layers from plugins: which kernel runs a layer, why not the others,\n"
          "and whether its numbers are right.\n"
          "\n"
          "Commands\n",
          out);
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        fprintf(out, "  %-9s  %s\n", commands[i]->name, commands[i]->summary);
    fputs("\n"
          "Begin with\n"
          "  kernelry check MODEL              a folder with safetensors and config.json\n"
          "  kernelry check MODEL --device cuda:sm_80\n"
          "  kernelry help COMMAND             its options and examples\n"
          "\n"
          "Environment\n"
          "  KERNELRY_PLUGIN_PATH   folders and files with plugins, searched first\n"
          "  KERNELRY_PLUGIN_DIR    instead of the install's own plugin folder\n"
          "  KERNELRY_DISABLE, KERNELRY_PREFER, KERNELRY_PRIORITY=name=value,...\n"
          "                         leave out, put first or rank plugins and kernels\n"
          "  KERNELRY_CPU_MASK      CPU features that may be used, such as avx2 or none\n"
          "  KERNELRY_LOG           error, warning, info or debug: what the library logs\n"
          "  NO_COLOR               no colours\n"
          "\n"
          "Exit status\n"
          "  0  yes                         1  no: a layer without a kernel, a wrong number,\n"
          "  2  wrong usage                    a plugin named outright that was refused\n"
          "  3  bad or missing input        4  the machine: memory, device, full disk\n",
          out);
}

static const struct command *find_command(const char *name) {
    struct nearest nearest = nearest_begin(name, strlen(name));
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (!strcmp(commands[i]->name, name))
            return commands[i];
        nearest_offer(&nearest, commands[i]->name);
    }
    if (nearest.best)
        complain(EXIT_USAGE, "unknown command '%s'; did you mean '%s'?", name, nearest.best);
    else
        complain(EXIT_USAGE, "unknown command '%s'", name);
    fputs("Try 'kernelry --help'.\n", stderr);
    return NULL;
}

static int help(int argc, char **argv) {
    if (argc < 2) {
        print_help(stdout);
        return EXIT_YES;
    }
    const struct command *command = find_command(argv[1]);
    if (!command)
        return EXIT_USAGE;
    command_print_help(command, stdout);
    return EXIT_YES;
}

static int dispatch(int argc, char **argv) {
    if (argc < 2) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    const char *name = argv[1];
    if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help"))
        return help(argc - 1, argv + 1);
    if (!strcmp(name, "--version") || !strcmp(name, "-V"))
        name = "version";
    const struct command *command = find_command(name);
    return command ? command_execute(command, argc - 1, argv + 1) : EXIT_USAGE;
}

/* A file opened on a standard descriptor that the caller had closed would receive what is
 * printed. Writing to what takes its place fails, as it should. */
static void reserve_standard_descriptors(void) {
    for (int descriptor = 0; descriptor <= 2; descriptor++)
        if (fcntl(descriptor, F_GETFD) < 0 && errno == EBADF &&
            open("/dev/null", O_RDONLY) != descriptor)
            _exit(EXIT_MACHINE);
}

int main(int argc, char **argv) {
    reserve_standard_descriptors();
    signal(SIGPIPE, SIG_IGN); /* a closed pipe is an error of write, told by finish_output */
    return finish_output(dispatch(argc, argv));
}
