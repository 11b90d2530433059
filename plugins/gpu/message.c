#include "message.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char message[512];

kry_status gpu_fail(kry_status status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    return status;
}

const char *gpu_error_message(void) { return message; }
