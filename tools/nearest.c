/*
 * "Did you mean": Levenshtein's distance, a row at a time.
 */
#include "nearest.h"

#include <stdint.h>
#include <string.h>

/* Longer words are not compared: nobody mistypes 63 letters by a few. */
enum { LENGTH_MOST = 63 };

struct nearest nearest_begin(const char *typed, size_t length) {
    return (struct nearest){.typed = typed, .length = length, .distance = SIZE_MAX};
}

static size_t distance(const char *a, size_t a_length, const char *b, size_t b_length) {
    size_t row[LENGTH_MOST + 1];
    for (size_t j = 0; j <= b_length; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_length; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_length; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[b_length];
}

void nearest_offer(struct nearest *nearest, const char *word) {
    size_t length = strlen(word);
    if (!nearest->length || length > LENGTH_MOST || nearest->length > LENGTH_MOST)
        return;
    size_t far = distance(nearest->typed, nearest->length, word, length);
    size_t allowed = length / 3 ? length / 3 : 1;
    int starts = nearest->length < length && !memcmp(word, nearest->typed, nearest->length);
    if ((far <= allowed || starts) && far < nearest->distance) {
        nearest->best = word;
        nearest->distance = far;
    }
}
