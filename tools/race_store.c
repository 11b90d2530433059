/*
 * Where a race was run, and its files: JSON, text, and a plot that Python draws.
 */
#include "race_report.h"

#include "command.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- where --------------------------------------------------------------------------- */

/** Run a program, found in PATH; what it prints goes to `out` as far as there is room (NULL: to
 *  standard error). Returns whether it succeeded. */
static bool run_program(const char *const *arguments, char *out, size_t size) {
    int ends[2];
    pid_t child;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return false;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, out != NULL ? ends[1] : STDERR_FILENO,
                                     STDOUT_FILENO);
    if (out != NULL)
        posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    bool started = posix_spawnp(&child, arguments[0], &actions, NULL,
                                (char *const *)(uintptr_t)arguments, environ) == 0;
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    char drop[256];
    size_t had = 0;
    for (ssize_t got = started ? 1 : 0; got > 0;) {
        bool room = out != NULL && had + 1 < size;
        got = read(ends[0], room ? out + had : drop, room ? size - 1 - had : sizeof drop);
        had += room && got > 0 ? (size_t)got : 0;
    }
    close(ends[0]);
    if (out != NULL)
        out[had] = '\0';
    int status = -1;
    return started && waitpid(child, &status, 0) == child && WIFEXITED(status) &&
           WEXITSTATUS(status) == 0;
}

/** The value of a line of /proc/cpuinfo, or "". */
static void cpuinfo_field(const char *field, char *out, size_t size) {
    out[0] = '\0';
    FILE *file = fopen("/proc/cpuinfo", "re");
    char line[512];
    size_t length = strlen(field);
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        char *colon = strchr(line, ':');
        /* "model" is not "model name": only blanks may follow. */
        if (strncmp(line, field, length) != 0 || colon == NULL ||
            strspn(line + length, " \t") != (size_t)(colon - line) - length)
            continue;
        colon += strspn(colon, ": \t");
        colon[strcspn(colon, "\n")] = '\0';
        snprintf(out, size, "%s", colon);
        break;
    }
    if (file != NULL)
        fclose(file);
}

void race_report_place(struct race_report *report, const char *folder) {
    time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(report->date, sizeof report->date, "%Y-%m-%dT%H:%M:%SZ", &utc);

    const char *const git[] = {"git",      "-C",      folder,   "describe",
                               "--always", "--dirty", "--tags", NULL};
    if (folder == NULL || !run_program(git, report->commit, sizeof report->commit))
        report->commit[0] = '\0';
    report->commit[strcspn(report->commit, "\n")] = '\0';

    char family[16], model[16];
    cpuinfo_field("cpu family", family, sizeof family);
    cpuinfo_field("model", model, sizeof model);
    const char *name = report->setting->device->name;
    snprintf(report->cpu, sizeof report->cpu, "%s", name[0] != '\0' ? name : "unknown processor");
    bool cpu = strcmp(report->setting->device->platform, "cpu") == 0;
    if (cpu && family[0] != '\0' && model[0] != '\0')
        snprintf(report->cpu, sizeof report->cpu, "%s family %s model %s", name, family, model);
}

/* ---- files --------------------------------------------------------------------------- */

/** "AMD EPYC 9654" as "amd-epyc-9654". */
static void make_slug(const char *text, char *out, size_t size) {
    size_t length = 0;
    for (; *text != '\0' && length + 2 < size; text++) {
        if (isalnum((unsigned char)*text))
            out[length++] = (char)tolower((unsigned char)*text);
        else if (length > 0 && out[length - 1] != '-')
            out[length++] = '-';
    }
    while (length > 0 && out[length - 1] == '-')
        length--;
    out[length] = '\0';
}

/** Open a .json that is not there yet; *stem gets its path without the ending. */
static FILE *create_result(const struct race_report *report, const char *folder, char *stem,
                           size_t size) {
    char slug[128], path[4096 + 8];
    make_slug(report->cpu, slug, sizeof slug);
    for (int number = 1; number < 1000; number++) {
        int length = number == 1 ? snprintf(stem, size, "%s/%.10s-%s", folder, report->date, slug)
                                 : snprintf(stem, size, "%s/%.10s-%s-%d", folder, report->date,
                                            slug, number);
        if (length < 0 || (size_t)length >= size) {
            errno = ENAMETOOLONG;
            return NULL;
        }
        snprintf(path, sizeof path, "%s.json", stem);
        FILE *file = fopen(path, "wxe");
        if (file != NULL || errno != EEXIST)
            return file;
    }
    return NULL;
}

static bool write_json(const struct race_report *report, FILE *file) {
    json_t *object = race_report_json(report);
    bool written = json_dumpf(object, file, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) == 0 &&
                   putc('\n', file) != EOF;
    json_decref(object);
    return fclose(file) == 0 && written;
}

static bool write_text(const struct race_report *report, const char *path) {
    FILE *file = fopen(path, "we");
    if (file == NULL)
        return false;
    fputs("```text\n", file);
    bool printed = race_report_print(report, file);
    fputs("```\n", file);
    bool written = !ferror(file);
    return fclose(file) == 0 && printed && written;
}

int race_report_store(const struct race_report *report, const char *folder, const char *python,
                      const char *plot) {
    char stem[4096], json[4096 + 8], text[4096 + 8], picture[4096 + 8];
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        return complain(EXIT_MACHINE, "%s: %s", folder, strerror(errno));
    FILE *file = create_result(report, folder, stem, sizeof stem);
    if (file == NULL)
        return complain(EXIT_MACHINE, "%s: no result could be created: %s", folder,
                        strerror(errno));
    snprintf(json, sizeof json, "%s.json", stem);
    snprintf(text, sizeof text, "%s.md", stem);
    snprintf(picture, sizeof picture, "%s.png", stem);
    if (!write_json(report, file))
        return complain(EXIT_MACHINE, "%s: could not be written", json);
    if (!write_text(report, text))
        return complain(EXIT_MACHINE, "%s: could not be written", text);
    fprintf(stderr, "kernelry: wrote %s and .md\n", json);
    const char *const draw[] = {python, plot, json, picture, NULL};
    if (plot == NULL)
        warn("no plot: the folder with plot.py was not found (--bench-dir)");
    else if (!run_program(draw, NULL, 0))
        warn("%s: no plot was drawn: %s needs matplotlib", picture, plot);
    return EXIT_YES;
}
