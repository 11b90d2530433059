/*
 * Structs that cross the boundary: older and newer writers made one size.
 */
#include "core.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

kry_status core_copy_in(void *to, size_t to_size, const void *from, size_t least,
                        const char *type) {
    if (from == NULL)
        return kry_error_set(KRY_E_ARGUMENT, "%s: found NULL, expected a struct", type);
    size_t size;
    memcpy(&size, from, sizeof size);
    if (size < least)
        return kry_error_set(KRY_E_ABI, "%s: struct_size is %zu, expected at least %zu (KRY-C02)",
                             type, size, least);
    if (size > to_size) {
        const unsigned char *bytes = from;
        for (size_t i = to_size; i < size; i++)
            if (bytes[i] != 0)
                return kry_error_set(KRY_E_ABI,
                                     "%s: byte %zu of %zu is set, but this library (ABI %d.%d) "
                                     "knows only %zu (KRY-C02)",
                                     type, i, size, KRY_ABI_MAJOR, KRY_ABI_MINOR, to_size);
    }
    memset(to, 0, to_size);
    memcpy(to, from, size < to_size ? size : to_size);
    memcpy(to, &to_size, sizeof to_size);
    return KRY_OK;
}

kry_status core_copy_out(void *to, const void *from, size_t from_size, const char *type) {
    if (to == NULL)
        return kry_error_set(KRY_E_ARGUMENT, "%s: found NULL, expected a struct to fill", type);
    size_t size;
    memcpy(&size, to, sizeof size);
    if (size < sizeof size)
        return kry_error_set(KRY_E_ABI, "%s: struct_size is %zu; set it before the call (KRY-C02)",
                             type, size);
    size_t common = size < from_size ? size : from_size;
    memset(to, 0, size);
    memcpy(to, from, common);
    memcpy(to, &size, sizeof size);
    return KRY_OK;
}

char *core_format(const char *format, ...) {
    char *text = NULL;
    va_list arguments;
    va_start(arguments, format);
    int length = vasprintf(&text, format, arguments);
    va_end(arguments);
    return length < 0 ? NULL : text;
}
