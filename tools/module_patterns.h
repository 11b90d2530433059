/*
 * Lists of modules in compressed-tensors' words: a full dotted name, or "re:" and a regular
 * expression that must match at the name's start, as Python's re.match does.
 */
#ifndef KERNELRY_TOOLS_MODULE_PATTERNS_H
#define KERNELRY_TOOLS_MODULE_PATTERNS_H

#include <kernelry/kernelry.h>

#include <stdbool.h>

/** A compiled list. */
struct module_patterns;

/** Compile. Errors: KRY_E_ARGUMENT names the expression that is none; KRY_E_MEMORY. */
kry_status module_patterns_create(const char *const *texts, size_t count,
                                  struct module_patterns **out);
void module_patterns_destroy(struct module_patterns **patterns);

/** Whether an entry matches; each that does is remembered. */
bool module_patterns_match(struct module_patterns *patterns, const char *name);

/** The first entry, from *index on, that has matched nothing; NULL: none. *index is left past
 *  it. */
const char *module_patterns_unused(const struct module_patterns *patterns, size_t *index);

#endif
