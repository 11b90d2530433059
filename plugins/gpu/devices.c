/* Choosing among GPUs as CUDA's and HIP's variables do. */
#include "devices.h"

#include <stdlib.h>
#include <string.h>

enum { NOTHING = -1 };

/* The place that a word of a variable names among the chosen, or NOTHING. As CUDA reads it:
 * "1xyz" is 1. */
static int64_t named_place(const struct gpu_list *list, const char *word, size_t length,
                           size_t count, const size_t *places) {
    if (word[0] >= '0' && word[0] <= '9') {
        unsigned long place = strtoul(word, NULL, 10);
        return place < count ? (int64_t)places[place] : NOTHING;
    }
    int64_t out = NOTHING;
    for (size_t i = 0; length > 4 && i < count; i++)
        if (strncmp(list->found[places[i]].id, word, length) == 0) {
            if (out != NOTHING)
                return NOTHING; /* not unique */
            out = (int64_t)places[i];
        }
    return out;
}

size_t gpu_choose(const struct gpu_list *list, const char *visible, size_t count, size_t *places) {
    if (visible == NULL)
        return count;
    size_t chosen[GPU_DEVICES_MAX], chosen_count = 0;
    const char *word = visible;
    while (*word != '\0') {
        word += strspn(word, " \t");
        size_t length = strcspn(word, ", \t");
        int64_t place = named_place(list, word, length, count, places);
        if (place == NOTHING)
            break;
        for (size_t i = 0; i < chosen_count; i++)
            if (chosen[i] == (size_t)place)
                return 0;
        chosen[chosen_count++] = (size_t)place;
        word += strcspn(word, ",");
        word += *word == ',';
    }
    memcpy(places, chosen, chosen_count * sizeof places[0]);
    return chosen_count;
}

void gpu_cuda_order(const struct gpu_list *list, bool by_bus, size_t *places) {
    for (size_t i = 0; i < list->count; i++) {
        size_t at = i;
        /* Equal ones stay in the order of the bus. */
        for (; !by_bus && at > 0 && list->found[places[at - 1]].speed < list->found[i].speed; at--)
            places[at] = places[at - 1];
        places[at] = i;
    }
}
