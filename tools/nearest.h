/*
 * "Did you mean": the nearest of several words.
 */
#ifndef KERNELRY_NEAREST_H
#define KERNELRY_NEAREST_H

#include <stddef.h>

/** The search for the word nearest to what was typed. */
struct nearest {
    const char *typed;
    size_t length;
    const char *best; /* borrowed; NULL: nothing is near enough */
    size_t distance;
};

/** Begin a search; typed is borrowed, its first length bytes count. */
struct nearest nearest_begin(const char *typed, size_t length);

/** Offer a word. One is near enough when a third of its letters at most would have to change,
 *  or when it starts with what was typed. */
void nearest_offer(struct nearest *nearest, const char *word);

#endif
