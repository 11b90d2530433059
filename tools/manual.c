/*
 * The same tables, told in three languages.
 */
#include "manual.h"

#include <string.h>

static const struct {
    const char *names, *meaning; /* of several lines each, for --help folded by hand */
} environment[] = {
    {"KERNELRY_PLUGIN_PATH", "folders and files with plugins, searched first"},
    {"KERNELRY_PLUGIN_DIR", "instead of the install's own plugin folder"},
    {"KERNELRY_DISABLE, KERNELRY_PREFER, KERNELRY_PRIORITY=name=value,...",
     "leave out, put first or rank plugins and kernels"},
    {"KERNELRY_CPU_MASK", "CPU features that may be used, such as avx2 or none"},
    {"KERNELRY_LOG", "error, warning, info or debug: what the library logs"},
    {"KERNELRY_THREADS", "how many threads the CPU's platform brings"},
    {"NO_COLOR", "no colours"},
};

static const char *const exit_statuses[] = {
    "yes",
    "no: a layer without a kernel, a wrong number, a plugin named outright that was refused",
    "wrong usage",
    "bad or missing input",
    "the machine: memory, device, full disk",
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const char about[] =
    "Quantized linear layers from plugins: which kernel runs a layer, why not the others,\n"
    "and whether its numbers are right.";

/* ---- --help ------------------------------------------------------------------------------ */

void manual_print_help(FILE *out) {
    enum { COMMAND_COLUMN = 10, NAME_COLUMN = 21 };
    fprintf(out, "Usage: kernelry COMMAND [argument]...\n\n%s\n\nCommands\n", about);
    for (size_t i = 0; commands[i] != NULL; i++)
        fprintf(out, "  %-*s  %s\n", COMMAND_COLUMN, commands[i]->name, commands[i]->summary);
    fputs("\n"
          "Begin with\n"
          "  kernelry check MODEL              a folder with safetensors and config.json\n"
          "  kernelry check MODEL --device cuda:sm_80\n"
          "  kernelry help COMMAND             its options and examples\n"
          "  kernelry help --man [COMMAND]     the same as a man page\n"
          "  kernelry help --completion        a script for bash, which completes commands\n"
          "\n"
          "Environment\n",
          out);
    for (size_t i = 0; i < COUNT(environment); i++) {
        const char *names = environment[i].names;
        if (strlen(names) > NAME_COLUMN)
            fprintf(out, "  %s\n  %*s  %s\n", names, NAME_COLUMN, "", environment[i].meaning);
        else
            fprintf(out, "  %-*s  %s\n", NAME_COLUMN, names, environment[i].meaning);
    }
    fputs("\nExit status\n", out);
    for (size_t i = 0; i < COUNT(exit_statuses); i++)
        fprintf(out, "  %zu  %s\n", i, exit_statuses[i]);
}

/* ---- man pages --------------------------------------------------------------------------- */

/* A character of two or three bytes of UTF-8, which groff reads by its number. Returns how many
 * bytes follow the first. */
static size_t roff_character(FILE *out, const char *text) {
    const unsigned char *byte = (const unsigned char *)text;
    bool three = byte[0] >= 0xe0;
    unsigned number = three ? (byte[0] & 0xfu) << 12 | (byte[1] & 0x3fu) << 6 | (byte[2] & 0x3fu)
                            : (byte[0] & 0x1fu) << 6 | (byte[1] & 0x3fu);
    fprintf(out, "\\[u%04X]", number);
    return three ? 2 : 1;
}

/* Text of roff: a backslash and a hyphen are written as such. Nothing here begins a line with a dot
 * or a quote; should it, a zero-width character keeps roff from taking it for a request. */
static void roff_bytes(FILE *out, const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        bool begins = i == 0 || text[i - 1] == '\n';
        if (begins && (text[i] == '.' || text[i] == '\''))
            fputs("\\&", out);
        if (text[i] == '\\')
            fputs("\\e", out);
        else if (text[i] == '-')
            fputs("\\-", out);
        else if ((unsigned char)text[i] >= 0x80)
            i += roff_character(out, text + i);
        else
            putc(text[i], out);
    }
}

static void roff(FILE *out, const char *text) { roff_bytes(out, text, strlen(text)); }

/* Paragraphs, an empty line between them. */
static void roff_paragraphs(FILE *out, const char *text) {
    while (*text != '\0') {
        const char *end = strstr(text, "\n\n");
        size_t length = end != NULL ? (size_t)(end - text) : strlen(text);
        fputs(".PP\n", out);
        roff_bytes(out, text, length);
        putc('\n', out);
        text += length + (end != NULL ? 2 : 0);
    }
}

/* Lines as they are, each behind the command's name where there is one. */
static void roff_lines(FILE *out, const char *lead, const char *text) {
    fputs(".nf\n", out);
    while (*text != '\0') {
        size_t length = strcspn(text, "\n");
        roff(out, lead);
        roff_bytes(out, text, length);
        putc('\n', out);
        text += length + (text[length] == '\n');
    }
    fputs(".fi\n", out);
}

static void roff_head(FILE *out, const char *name, const char *summary) {
    fputs(".TH \"", out);
    for (const char *c = name; *c != '\0'; c++)
        putc(*c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c, out);
    fprintf(out, "\" 1 \"\" \"Kernelry %s\" \"Kernelry\"\n.SH NAME\n", kry_version());
    roff(out, name);
    fputs(" \\- ", out);
    roff(out, summary);
    fputs("\n.SH SYNOPSIS\n", out);
}

static void roff_item(FILE *out, const char *name, const char *argument, const char *meaning) {
    fputs(".TP\n.B ", out);
    roff(out, name);
    if (argument != NULL) {
        fputs(" \\fI", out);
        roff(out, argument);
        fputs("\\fR", out);
    }
    putc('\n', out);
    roff(out, meaning);
    putc('\n', out);
}

static void print_command_page(const struct command *command, FILE *out) {
    char name[64], lead[80];
    snprintf(name, sizeof name, "kernelry-%s", command->name);
    snprintf(lead, sizeof lead, "kernelry %s ", command->name);
    roff_head(out, name, command->summary);
    roff_lines(out, lead, command->usage);
    fputs(".SH DESCRIPTION\n", out);
    roff_paragraphs(out, command->details);
    fputs(".SH OPTIONS\n", out);
    const struct own_option *option;
    for (size_t i = 0; (option = command_option_at(command, i)) != NULL; i++) {
        char text[64];
        snprintf(text, sizeof text, "--%s", option->name);
        roff_item(out, text, option->argument, option->help);
    }
    fputs(".SH EXIT STATUS\n0 yes, 1 no, 2 usage, 3 bad input, 4 the machine.\n.SH EXAMPLES\n",
          out);
    roff_lines(out, "", command->examples);
    fputs(".SH SEE ALSO\n.BR kernelry (1)\n", out);
}

static void print_whole_page(FILE *out) {
    char name[64];
    roff_head(out, "kernelry", "quantized linear layers from plugins");
    fputs(".B kernelry\n\\fICOMMAND\\fR [\\fIargument\\fR]...\n.SH DESCRIPTION\n", out);
    roff_paragraphs(out, about);
    fputs(".SH COMMANDS\n", out);
    for (size_t i = 0; commands[i] != NULL; i++) {
        snprintf(name, sizeof name, "kernelry-%s(1)", commands[i]->name);
        roff_item(out, name, NULL, commands[i]->summary);
    }
    fputs(".SH ENVIRONMENT\n", out);
    for (size_t i = 0; i < COUNT(environment); i++)
        roff_item(out, environment[i].names, NULL, environment[i].meaning);
    fputs(".SH EXIT STATUS\n", out);
    for (size_t i = 0; i < COUNT(exit_statuses); i++) {
        snprintf(name, sizeof name, "%zu", i);
        roff_item(out, name, NULL, exit_statuses[i]);
    }
}

void manual_print_page(const struct command *command, FILE *out) {
    if (command != NULL)
        print_command_page(command, out);
    else
        print_whole_page(out);
}

/* ---- completion -------------------------------------------------------------------------- */

static void print_options(FILE *out, const struct command *command) {
    const struct own_option *option;
    for (size_t i = 0; (option = command_option_at(command, i)) != NULL; i++)
        fprintf(out, "%s--%s", i > 0 ? " " : "", option->name);
}

void manual_print_completion(FILE *out) {
    fputs("# Completion for bash; made by `kernelry help --completion`.\n"
          "_kernelry() {\n"
          "    local word=${COMP_WORDS[COMP_CWORD]} words=\n"
          "    if ((COMP_CWORD == 1)) || [[ ${COMP_WORDS[1]} == help ]]; then\n"
          "        words='",
          out);
    for (size_t i = 0; commands[i] != NULL; i++)
        fprintf(out, "%s ", commands[i]->name);
    fputs("help --help --version'\n"
          "    else\n"
          "        case ${COMP_WORDS[1]} in\n",
          out);
    for (size_t i = 0; commands[i] != NULL; i++) {
        fprintf(out, "        %s) words='", commands[i]->name);
        print_options(out, commands[i]);
        fputs("' ;;\n", out);
    }
    fputs("        esac\n"
          "        [[ $word == -* ]] || words=\n"
          "    fi\n"
          "    if [[ -n $words ]]; then\n"
          "        mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")\n"
          "    else\n"
          "        mapfile -t COMPREPLY < <(compgen -f -- \"$word\")\n"
          "    fi\n"
          "}\n"
          "complete -o filenames -F _kernelry kernelry\n",
          out);
}
