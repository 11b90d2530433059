/*
 * Regular expressions of configs, as Python's re.match understands them.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "internal.h"

#include <pcre2.h>
#include <stdlib.h>

struct pattern {
    char *text;
    char *where;
    pcre2_code *code;
    pcre2_match_data *data;
    pcre2_match_context *context;
};

/* Steps of one match, and the memory that it takes. Names of modules are short and patterns simple:
 * what takes more is made to take forever, or everything: a step of a pattern with thousands of
 * groups takes a hundred kilobytes. */
enum { MATCH_LIMIT = 100000, HEAP_LIMIT_KIB = 4096, SHOWN_BYTES = 200 };

static kry_status explain(int code, const char *text, const char *where, const char *what) {
    char reason[256];
    pcre2_get_error_message(code, (PCRE2_UCHAR *)reason, sizeof reason);
    bool is_long = strlen(text) > SHOWN_BYTES; /* the reason comes last and must fit */
    return kry_error_set(KRY_E_FORMAT, "%s: pattern '%.*s%s' %s: %s", where, SHOWN_BYTES, text,
                         is_long ? "..." : "", what, reason);
}

kry_status ckpt_pattern_create(const char *expression, const char *where, pattern **out) {
    pattern *pattern = calloc(1, sizeof *pattern);
    if (pattern == NULL)
        return kry_error_set(KRY_E_MEMORY, "%s: out of memory", where);
    kry_status status = KRY_E_MEMORY;
    pattern->text = strdup(expression);
    pattern->where = strdup(where);
    if (pattern->text == NULL || pattern->where == NULL)
        goto out;
    int error;
    size_t offset;
    pattern->code = pcre2_compile((PCRE2_SPTR)expression, PCRE2_ZERO_TERMINATED,
                                  PCRE2_ANCHORED | PCRE2_UTF | PCRE2_UCP, &error, &offset, NULL);
    if (pattern->code == NULL) {
        status = explain(error, expression, where, "is no regular expression");
        goto out;
    }
    pattern->data = pcre2_match_data_create(1, NULL);
    pattern->context = pcre2_match_context_create(NULL);
    if (pattern->data == NULL || pattern->context == NULL)
        goto out;
    pcre2_set_match_limit(pattern->context, MATCH_LIMIT);
    pcre2_set_heap_limit(pattern->context, HEAP_LIMIT_KIB);
    *out = pattern;
    return KRY_OK;
out:
    ckpt_pattern_destroy(pattern);
    return status == KRY_E_MEMORY ? kry_error_set(status, "%s: out of memory", where) : status;
}

void ckpt_pattern_destroy(pattern *expression) {
    if (expression == NULL)
        return;
    pcre2_match_context_free(expression->context);
    pcre2_match_data_free(expression->data);
    pcre2_code_free(expression->code);
    free(expression->where);
    free(expression->text);
    free(expression);
}

kry_status ckpt_pattern_match(const pattern *expression, const char *name, bool *out) {
    int found = pcre2_match(expression->code, (PCRE2_SPTR)name, PCRE2_ZERO_TERMINATED, 0, 0,
                            expression->data, expression->context);
    if (found < 0 && found != PCRE2_ERROR_NOMATCH)
        return explain(found, expression->text, expression->where, "cannot be matched");
    *out = found >= 0;
    return KRY_OK;
}
