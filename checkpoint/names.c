/*
 * Names of layers: their order, and which resemble one that is not there.
 */
#include "internal.h"

#include <stdio.h>

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* Compare two runs of digits as numbers of any length; both pointers move past them. */
static int compare_numbers(const char **a, const char **b) {
    while (**a == '0')
        (*a)++;
    while (**b == '0')
        (*b)++;
    size_t a_digits = 0, b_digits = 0;
    while (is_digit((*a)[a_digits]))
        a_digits++;
    while (is_digit((*b)[b_digits]))
        b_digits++;
    int order = a_digits != b_digits ? (a_digits < b_digits ? -1 : 1) : strncmp(*a, *b, a_digits);
    *a += a_digits;
    *b += b_digits;
    return order;
}

int ckpt_names_compare(const char *a, const char *b) {
    const char *left = a, *right = b;
    while (*left != '\0' && *right != '\0') {
        int order = is_digit(*left) && is_digit(*right)
                        ? compare_numbers(&left, &right)
                        : (unsigned char)*left++ - (unsigned char)*right++;
        if (order != 0)
            return order;
    }
    if (*left != *right)
        return *left == '\0' ? -1 : 1;
    return strcmp(a, b); /* "a.01" and "a.1" are two names */
}

/* Names longer than this are compared by their beginning. */
enum { NAME_BYTES = 128, NEAR_COUNT = 3 };

/* How many characters must be changed, added or left out to turn a into b. */
static size_t edit_distance(const char *a, const char *b) {
    size_t row[NAME_BYTES + 1];
    size_t b_length = strnlen(b, NAME_BYTES);
    for (size_t j = 0; j <= b_length; j++)
        row[j] = j;
    for (size_t i = 1; i <= NAME_BYTES && a[i - 1] != '\0'; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_length; j++) {
            size_t change = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            size_t shorter = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            row[j] = change < shorter ? change : shorter;
        }
    }
    return row[b_length];
}

void ckpt_names_near(const kry_checkpoint *checkpoint, const char *name, char *out, size_t size) {
    struct {
        const char *name;
        size_t distance;
    } near[NEAR_COUNT] = {0};
    size_t count = 0, limit = strnlen(name, NAME_BYTES) / 4 + 2;
    for (size_t i = 0; i < checkpoint->layer_count; i++) {
        const char *other = checkpoint->layers[i].name;
        /* "down_proj" is a near miss of every layer that it is a part of. */
        bool part = name[0] != '\0' && strstr(other, name) != NULL;
        size_t distance = part ? 0 : edit_distance(name, other);
        if (distance > limit)
            continue;
        size_t place = count;
        while (place > 0 && near[place - 1].distance > distance)
            place--;
        if (place == NEAR_COUNT)
            continue;
        count += count < NEAR_COUNT;
        for (size_t j = count - 1; j > place; j--)
            near[j] = near[j - 1];
        near[place].name = other;
        near[place].distance = distance;
    }
    out[0] = '\0';
    size_t length = 0;
    for (size_t i = 0; i < count && length < size; i++)
        length +=
            (size_t)snprintf(out + length, size - length, i == 0 ? "'%s'" : ", '%s'", near[i].name);
}
