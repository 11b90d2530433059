/* Calls the README's example, which is included as it stands there. */
#include "readme.c"

#include <stdio.h>

static uint16_t x[1 << 16];
static uint32_t y[1 << 16]; /* room for any y_type */
static _Alignas(KRY_ALIGNMENT) char scratch[1 << 20];

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    for (size_t i = 0; i < sizeof x / sizeof x[0]; i++)
        x[i] = 0x3c00; /* 1.0 as f16 and 0.0078 as bf16: neither is zero */
    if (run_layer(argv[1], argv[2], x, y, scratch, sizeof scratch) != 0) {
        fprintf(stderr, "run_layer: %s\n", kry_error_message());
        return 1;
    }
    printf("y starts with 0x%08x\n", (unsigned)y[0]);
    return y[0] != 0 ? 0 : 1;
}
