/* What a launch said that went wrong, or NULL. Included after cmocka. */
#ifndef KERNELRY_SIMT_FAULTS_H
#define KERNELRY_SIMT_FAULTS_H

#include <string.h>

static inline void assert_no_fault(const char *fault) {
    if (fault != NULL) {
        fail_msg("%s", fault);
    }
}

static inline void assert_says(const char *fault, const char *words) {
    if (fault == NULL) {
        fail_msg("nothing was found; expected: %s", words);
    } else if (strstr(fault, words) == NULL) {
        fail_msg("expected '%s' in: %s", words, fault);
    }
}

#endif
