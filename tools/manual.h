/*
 * What is told of the command as a whole, in three forms: --help, man pages, completion for bash.
 * All are made from the commands' own tables.
 */
#ifndef KERNELRY_TOOLS_MANUAL_H
#define KERNELRY_TOOLS_MANUAL_H

#include "command.h"

/** The subcommands, in the order in which they are listed; NULL ends the list. */
extern const struct command *const commands[];

/** `kernelry --help`. */
void manual_print_help(FILE *out);

/** A man page, in roff: kernelry(1), or kernelry-COMMAND(1). command NULL: of the whole. */
void manual_print_page(const struct command *command, FILE *out);

/** A script that bash reads to complete command lines. */
void manual_print_completion(FILE *out);

#endif
