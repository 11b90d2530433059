/*
 * kernelry: choose the subcommand.
 */
#include "manual.h"
#include "nearest.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct command *const commands[] = {
    &command_check,   &command_explain,  &command_run,     &command_prepare,
    &command_bench,   &command_quantize, &command_verify,  &command_new_plugin,
    &command_plugins, &command_devices,  &command_version, NULL,
};

static const struct command *find_command(const char *name) {
    struct nearest nearest = nearest_begin(name, strlen(name));
    for (size_t i = 0; commands[i] != NULL; i++) {
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

/* help [--man] [COMMAND], help --completion */
static int help(int argc, char **argv) {
    bool page = argc > 1 && strcmp(argv[1], "--man") == 0;
    if (argc == 2 && strcmp(argv[1], "--completion") == 0) {
        manual_print_completion(stdout);
        return EXIT_YES;
    }
    const struct command *command = NULL;
    int named = page ? 2 : 1;
    if (argc > named && (command = find_command(argv[named])) == NULL)
        return EXIT_USAGE;
    if (page)
        manual_print_page(command, stdout);
    else if (command != NULL)
        command_print_help(command, stdout);
    else
        manual_print_help(stdout);
    return EXIT_YES;
}

static int dispatch(int argc, char **argv) {
    if (argc < 2) {
        manual_print_help(stderr);
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
