/* Code objects for every architecture that a whole build has, for drivers that look at none. */
#include "code.h"

const struct gpu_code_object gpu_code_objects[] = {
    {"cuda", 80, 1, "PTX"},         {"cuda", 75, 0, "sm_75"},
    {"cuda", 80, 0, "sm_80"},       {"cuda", 89, 0, "sm_89"},
    {"cuda", 90, 0, "sm_90"},       {"cuda", 100, 0, "sm_100"},
    {"cuda", 120, 0, "sm_120"},     {"rocm", 0x90a, 0, "gfx90a"},
    {"rocm", 0x942, 0, "gfx942"},   {"rocm", 0x1100, 0, "gfx1100"},
    {"rocm", 0x1151, 0, "gfx1151"}, {"rocm", 0x1200, 0, "gfx1200"},
    {"rocm", 0x1201, 0, "gfx1201"}, {NULL, 0, 0, NULL}};
