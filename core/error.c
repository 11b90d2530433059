/*
 * The sentence behind the last failed call of each thread.
 */
#include "core.h"

#include <stdarg.h>
#include <stdio.h>

enum { MESSAGE_BYTES = 4096 };

static _Thread_local char last_message[MESSAGE_BYTES];

const char *kry_error_message(void) { return last_message; }

/* The length of the character of UTF-8 that begins there, 1 for ASCII; 0 where none does: the forms
 * of the Unicode Standard, table 3-7. */
static size_t utf8_length(const unsigned char *c) {
    if (c[0] < 0x80)
        return 1;
    size_t length = c[0] >= 0xf0 ? 4 : c[0] >= 0xe0 ? 3 : 2;
    unsigned char least = c[0] == 0xe0 ? 0xa0 : c[0] == 0xf0 ? 0x90 : 0x80;
    unsigned char most = c[0] == 0xed ? 0x9f : c[0] == 0xf4 ? 0x8f : 0xbf;
    if (c[0] < 0xc2 || c[0] > 0xf4 || c[1] < least || c[1] > most)
        return 0;
    for (size_t i = 2; i < length; i++)
        if (c[i] < 0x80 || c[i] > 0xbf)
            return 0;
    return length;
}

void core_clean(char *text) {
    for (unsigned char *c = (unsigned char *)text; *c != '\0';) {
        size_t length = utf8_length(c);
        bool control = *c < ' ' || *c == 0x7f || (*c == 0xc2 && c[1] < 0xa0);
        if (length == 0 || control)
            *c = *c == '\n' || *c == '\t' ? ' ' : '?';
        c += length > 0 && !control ? length : 1;
    }
}

kry_status kry_error_set(kry_status status, const char *format, ...) {
    /* Composed apart: the old message may be one of the arguments. */
    char message[MESSAGE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    if (length < 0)
        length = 0;
    if ((size_t)length >= sizeof message)
        length = (int)sizeof message - 1;
    message[length] = '\0';
    core_clean(message);
    for (int i = 0; i < length; i++)
        last_message[i] = message[i];
    last_message[length] = '\0';
    return status;
}

const char *kry_status_string(kry_status status) {
    static const char *const words[] = {
        [KRY_OK] = "ok",
        [KRY_E_ARGUMENT] = "wrong argument",
        [KRY_E_MEMORY] = "out of memory",
        [KRY_E_IO] = "input or output failed",
        [KRY_E_FORMAT] = "damaged or wrong format",
        [KRY_E_ABI] = "incompatible ABI",
        [KRY_E_TRUST] = "not trusted",
        [KRY_E_DEPENDENCY] = "missing dependency",
        [KRY_E_NO_KERNEL] = "no kernel",
        [KRY_E_DEVICE] = "device failed or absent",
        [KRY_E_WORKSPACE] = "workspace too small",
        [KRY_E_PLUGIN] = "plugin broke a duty",
        [KRY_E_UNSUPPORTED] = "not supported",
        [KRY_E_NOT_FOUND] = "not found",
        [KRY_E_STATE] = "called out of order",
        [KRY_E_FOREIGN] = "of another layout or description",
        [KRY_E_STALE] = "of other weights",
    };
    if (status < 0 || (size_t)status >= sizeof words / sizeof words[0])
        return "unknown status";
    return words[status];
}

uint32_t kry_abi_version(void) { return KRY_ABI_VERSION; }

const char *kry_version(void) { return KERNELRY_VERSION; }
