/*
 * Lists of modules in compressed-tensors' words.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "module_patterns.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

struct entry {
    const char *text; /* borrowed */
    pcre2_code *code; /* NULL: a name */
    pcre2_match_data *data;
    bool used;
};

struct module_patterns {
    size_t count;
    struct entry entries[];
};

static kry_status compile(struct entry *entry, const char *text) {
    entry->text = text;
    if (strncmp(text, "re:", 3) != 0)
        return KRY_OK;
    int error;
    size_t offset;
    entry->code = pcre2_compile((PCRE2_SPTR)(text + 3), PCRE2_ZERO_TERMINATED,
                                PCRE2_ANCHORED | PCRE2_UTF | PCRE2_UCP, &error, &offset, NULL);
    if (entry->code == NULL) {
        char reason[256];
        pcre2_get_error_message(error, (PCRE2_UCHAR *)reason, sizeof reason);
        return kry_error_set(KRY_E_ARGUMENT, "'%s' is no regular expression: %s (at %zu)", text,
                             reason, offset);
    }
    entry->data = pcre2_match_data_create(1, NULL);
    return entry->data != NULL ? KRY_OK : kry_error_set(KRY_E_MEMORY, "out of memory");
}

kry_status module_patterns_create(const char *const *texts, size_t count,
                                  struct module_patterns **out) {
    struct module_patterns *patterns =
        calloc(1, sizeof *patterns + count * sizeof patterns->entries[0]);
    if (patterns == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    patterns->count = count;
    for (size_t i = 0; i < count; i++) {
        kry_status status = compile(&patterns->entries[i], texts[i]);
        if (status != KRY_OK) {
            module_patterns_destroy(&patterns);
            return status;
        }
    }
    *out = patterns;
    return KRY_OK;
}

void module_patterns_destroy(struct module_patterns **patterns) {
    struct module_patterns *gone = *patterns;
    if (gone == NULL)
        return;
    for (size_t i = 0; i < gone->count; i++) {
        pcre2_match_data_free(gone->entries[i].data);
        pcre2_code_free(gone->entries[i].code);
    }
    free(gone);
    *patterns = NULL;
}

bool module_patterns_match(struct module_patterns *patterns, const char *name) {
    bool found = false;
    for (size_t i = 0; i < patterns->count; i++) {
        struct entry *entry = &patterns->entries[i];
        bool matches = entry->code == NULL
                           ? strcmp(entry->text, name) == 0
                           : pcre2_match(entry->code, (PCRE2_SPTR)name, strlen(name), 0, 0,
                                         entry->data, NULL) >= 0;
        entry->used = entry->used || matches;
        found = found || matches;
    }
    return found;
}

const char *module_patterns_unused(const struct module_patterns *patterns, size_t *index) {
    while (*index < patterns->count) {
        const struct entry *entry = &patterns->entries[(*index)++];
        if (!entry->used)
            return entry->text;
    }
    return NULL;
}
