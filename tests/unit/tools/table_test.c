/* Tables for people. */
#include "table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static const struct column columns[] = {{"NAME", false}, {"COUNT", true}, {"WHY", false}};

static char *printed(struct table *table, int indent) {
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    assert_non_null(out);
    assert_true(table_print(table, out, indent));
    fclose(out);
    return text;
}

static void add_row(struct table *table, const char *name, int count, const char *why) {
    table_add(table, STYLE_GOOD, "%s", name);
    table_add(table, STYLE_PLAIN, "%d", count);
    table_add(table, STYLE_PLAIN, "%s", why);
}

static void table_with_wide_cells_aligns_columns(void **state) {
    (void)state;
    struct table table;
    table_begin(&table, columns, 3);
    add_row(&table, "a", 12345678, "short");
    add_row(&table, "4096×28672", 1, "x");
    char *text = printed(&table, 2);
    assert_string_equal(text, "  NAME           COUNT  WHY\n"
                              "  a           12345678  short\n"
                              "  4096×28672         1  x\n");
    free(text);
}

static void table_with_empty_last_cells_ends_lines_without_blanks(void **state) {
    (void)state;
    struct table table;
    table_begin(&table, columns, 3);
    add_row(&table, "a", 1, "");
    char *text = printed(&table, 0);
    assert_string_equal(text, "NAME  COUNT  WHY\n"
                              "a         1\n");
    free(text);
}

static void table_with_notes_prints_them_below_their_rows(void **state) {
    (void)state;
    struct table table;
    table_begin(&table, columns, 3);
    add_row(&table, "a", 1, "x");
    table_note(&table, STYLE_DIM, "a note much wider than any of the columns");
    add_row(&table, "b", 2, "y");
    char *text = printed(&table, 0);
    assert_string_equal(text, "NAME  COUNT  WHY\n"
                              "a         1  x\n"
                              "  a note much wider than any of the columns\n"
                              "b         2  y\n");
    free(text);
}

static void table_without_rows_prints_headings(void **state) {
    (void)state;
    struct table table;
    table_begin(&table, columns, 3);
    char *text = printed(&table, 0);
    assert_string_equal(text, "NAME  COUNT  WHY\n");
    free(text);
}

static void table_with_control_characters_defuses_them(void **state) {
    (void)state;
    struct table table;
    table_begin(&table, columns, 1);
    table_add(&table, STYLE_PLAIN, "a\033[31m\nb");
    char *text = printed(&table, 0);
    assert_string_equal(text, "NAME\na?[31m?b\n");
    free(text);
}

static void table_with_many_rows_prints_them_all(void **state) {
    (void)state;
    struct table table;
    table_begin(&table, columns, 1);
    for (int i = 0; i < 1000; i++)
        table_add(&table, STYLE_PLAIN, "%d", i);
    char *text = printed(&table, 0);
    assert_non_null(strstr(text, "\n999\n"));
    free(text);
}

static void text_width_counts_characters(void **state) {
    (void)state;
    assert_int_equal(text_width(""), 0);
    assert_int_equal(text_width("K×N"), 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_with_wide_cells_aligns_columns),
        cmocka_unit_test(table_with_empty_last_cells_ends_lines_without_blanks),
        cmocka_unit_test(table_with_notes_prints_them_below_their_rows),
        cmocka_unit_test(table_without_rows_prints_headings),
        cmocka_unit_test(table_with_control_characters_defuses_them),
        cmocka_unit_test(table_with_many_rows_prints_them_all),
        cmocka_unit_test(text_width_counts_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
