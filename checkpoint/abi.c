/*
 * Structs that cross the boundary: older and newer callers made one size.
 */
#include "internal.h"

kry_status ckpt_copy_in(void *to, size_t to_size, const void *from, const char *type) {
    size_t size;
    memcpy(&size, from, sizeof size);
    if (size < sizeof size)
        return kry_error_set(KRY_E_ABI, "%s: struct_size is %zu; set it before the call", type,
                             size);
    const unsigned char *bytes = from;
    for (size_t i = to_size; i < size; i++)
        if (bytes[i] != 0)
            return kry_error_set(KRY_E_ABI,
                                 "%s: byte %zu of %zu is set, but this library (ABI %d.%d) knows "
                                 "only %zu",
                                 type, i, size, KRY_ABI_MAJOR, KRY_ABI_MINOR, to_size);
    memset(to, 0, to_size);
    memcpy(to, from, size < to_size ? size : to_size);
    memcpy(to, &to_size, sizeof to_size);
    return KRY_OK;
}

kry_status ckpt_copy_out(void *to, const void *from, size_t from_size, const char *type) {
    if (to == NULL)
        return kry_error_set(KRY_E_ARGUMENT, "%s: found NULL, expected a struct to fill", type);
    size_t size;
    memcpy(&size, to, sizeof size);
    if (size < sizeof size)
        return kry_error_set(KRY_E_ABI, "%s: struct_size is %zu; set it before the call", type,
                             size);
    memset(to, 0, size);
    memcpy(to, from, size < from_size ? size : from_size);
    memcpy(to, &size, sizeof size);
    return KRY_OK;
}
