/*
 * Human output. Widths count UTF-8 characters, one column each: enough for ×, – and names.
 */
#include "table.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct cell {
    char *text;
    enum style style;
    bool note; /* a line of its own across all columns */
};

static const char *const escapes[] = {
    [STYLE_PLAIN] = "",         [STYLE_GOOD] = "\033[32m", [STYLE_WARNING] = "\033[33m",
    [STYLE_BAD] = "\033[31;1m", [STYLE_DIM] = "\033[2m",   [STYLE_BOLD] = "\033[1m",
};

bool colours_wanted(FILE *out) {
    const char *no_colour = getenv("NO_COLOR"), *terminal = getenv("TERM");
    return isatty(fileno(out)) && !(no_colour && *no_colour) &&
           !(terminal && !strcmp(terminal, "dumb"));
}

size_t text_width(const char *text) {
    size_t width = 0;
    for (; *text; text++)
        width += ((unsigned char)*text & 0xc0) != 0x80; /* continuation bytes take no column */
    return width;
}

/* What is printed may quote a file: control characters must not reach a terminal. */
static void clean(char *text) {
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = '?';
}

static void print_in_style(FILE *out, enum style style, const char *text) {
    bool colours = style != STYLE_PLAIN && colours_wanted(out);
    fprintf(out, "%s%s%s", colours ? escapes[style] : "", text, colours ? "\033[0m" : "");
}

void print_styled(FILE *out, enum style style, const char *format, ...) {
    char *text = NULL;
    va_list arguments;
    va_start(arguments, format);
    int length = vasprintf(&text, format, arguments);
    va_end(arguments);
    if (length < 0)
        return;
    clean(text);
    print_in_style(out, style, text);
    free(text);
}

void table_begin(struct table *table, const struct column *columns, size_t column_count) {
    *table = (struct table){.columns = columns, .column_count = column_count};
}

static void add(struct table *table, bool note, enum style style, const char *format,
                va_list arguments) {
    if (table->count == table->capacity && !table->failed) {
        size_t capacity = table->capacity ? 2 * table->capacity : 64;
        struct cell *grown = realloc(table->cells, capacity * sizeof *grown);
        table->failed = !grown;
        if (grown) {
            table->cells = grown;
            table->capacity = capacity;
        }
    }
    if (table->failed)
        return;
    struct cell *cell = &table->cells[table->count];
    *cell = (struct cell){.style = style, .note = note};
    if (vasprintf(&cell->text, format, arguments) < 0) {
        table->failed = true;
        return;
    }
    clean(cell->text);
    table->count++;
}

void table_add(struct table *table, enum style style, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    add(table, false, style, format, arguments);
    va_end(arguments);
}

void table_note(struct table *table, enum style style, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    add(table, true, style, format, arguments);
    va_end(arguments);
}

static void spaces(FILE *out, size_t count) { fprintf(out, "%*s", (int)count, ""); }

static void print_cell(FILE *out, const struct column *column, size_t width, bool last,
                       enum style style, const char *text) {
    size_t blank = width - text_width(text);
    if (column->right)
        spaces(out, blank);
    print_in_style(out, style, text);
    if (!last)
        spaces(out, (column->right ? 0 : blank) + 2);
}

static size_t *measure(const struct table *table) {
    size_t *widths = calloc(table->column_count, sizeof *widths);
    for (size_t j = 0; widths && j < table->column_count; j++)
        widths[j] = text_width(table->columns[j].heading);
    for (size_t i = 0, j = 0; widths && i < table->count; i++) {
        if (table->cells[i].note)
            continue;
        size_t width = text_width(table->cells[i].text);
        if (width > widths[j])
            widths[j] = width;
        j = (j + 1) % table->column_count;
    }
    return widths;
}

/* The last cell of a row that holds something: no line ends in blanks. */
static size_t last_filled(const struct cell *row, size_t count) {
    while (count > 1 && !row[count - 1].text[0])
        count--;
    return count - 1;
}

static void print_row(const struct table *table, const size_t *widths, const struct cell *row,
                      FILE *out) {
    size_t last = last_filled(row, table->column_count);
    for (size_t j = 0; j <= last; j++)
        print_cell(out, &table->columns[j], widths[j], j == last, row[j].style, row[j].text);
    putc('\n', out);
}

static void print_rows(const struct table *table, const size_t *widths, FILE *out, int indent) {
    spaces(out, (size_t)indent);
    for (size_t j = 0; j < table->column_count; j++)
        print_cell(out, &table->columns[j], widths[j], j + 1 == table->column_count, STYLE_DIM,
                   table->columns[j].heading);
    putc('\n', out);
    for (size_t i = 0; i < table->count;) {
        const struct cell *cell = &table->cells[i];
        spaces(out, (size_t)indent + (cell->note ? 2 : 0));
        if (cell->note) {
            print_in_style(out, cell->style, cell->text);
            putc('\n', out);
            i++;
        } else {
            print_row(table, widths, cell, out);
            i += table->column_count;
        }
    }
}

bool table_print(struct table *table, FILE *out, int indent) {
    size_t *widths = table->failed ? NULL : measure(table);
    bool good = widths != NULL;
    if (good)
        print_rows(table, widths, out, indent);
    else
        fputs("kernelry: out of memory\n", stderr);
    for (size_t i = 0; i < table->count; i++)
        free(table->cells[i].text);
    free(table->cells);
    free(widths);
    table_begin(table, table->columns, table->column_count);
    return good;
}
