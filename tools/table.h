/*
 * Human output: aligned tables, colours on a terminal.
 */
#ifndef KERNELRY_TABLE_H
#define KERNELRY_TABLE_H

#include <kernelry/types.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/** How a cell looks on a terminal. */
enum style { STYLE_PLAIN, STYLE_GOOD, STYLE_WARNING, STYLE_BAD, STYLE_DIM, STYLE_BOLD };

/** A column of a table. */
struct column {
    const char *heading;
    bool right; /* numbers */
};

/** A table: filled cell by cell, printed once all widths are known. */
struct table {
    const struct column *columns;
    size_t column_count;
    struct cell *cells;
    size_t count;
    size_t capacity;
    bool failed; /* out of memory */
};

/** Begin an empty table; columns are borrowed. */
void table_begin(struct table *table, const struct column *columns, size_t column_count);

/** Add a cell, row by row; control characters are shown as '?'. */
void table_add(struct table *table, enum style style, const char *format, ...) KRY_PRINTF(3, 4);

/** Add a line of its own below the row just completed, indented, across all columns. */
void table_note(struct table *table, enum style style, const char *format, ...) KRY_PRINTF(3, 4);

/** Print headings and rows, each line indented by so many spaces, and free the table. Returns
 *  false when memory ran out (then only a message on standard error is printed). */
bool table_print(struct table *table, FILE *out, int indent);

/** Print text in a style, control characters shown as '?'. */
void print_styled(FILE *out, enum style style, const char *format, ...) KRY_PRINTF(3, 4);

/** Whether colours belong on this stream: a terminal, TERM is not "dumb", NO_COLOR is not set. */
bool colours_wanted(FILE *out);

/** Columns that a UTF-8 text takes, counting each character as one. */
size_t text_width(const char *text);

#endif
