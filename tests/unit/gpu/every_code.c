/* Code objects for every architecture that a whole build has, for drivers that look at none. */
#include "code.h"

const struct gpu_code_object gpu_code_objects[] = {
    {"cuda", 80, GPU_CODE_LATER, "PTX"},         {"cuda", 75, GPU_CODE_MINOR, "sm_75"},
    {"cuda", 80, GPU_CODE_MINOR, "sm_80"},       {"cuda", 89, GPU_CODE_MINOR, "sm_89"},
    {"cuda", 90, GPU_CODE_MINOR, "sm_90"},       {"cuda", 90, GPU_CODE_EXACT, "sm_90a"},
    {"cuda", 100, GPU_CODE_MINOR, "sm_100"},     {"cuda", 120, GPU_CODE_MINOR, "sm_120"},
    {"cuda", 120, GPU_CODE_EXACT, "sm_120a"},    {"rocm", 0x90a, GPU_CODE_MINOR, "gfx90a"},
    {"rocm", 0x942, GPU_CODE_MINOR, "gfx942"},   {"rocm", 0x1100, GPU_CODE_MINOR, "gfx1100"},
    {"rocm", 0x1151, GPU_CODE_MINOR, "gfx1151"}, {"rocm", 0x1200, GPU_CODE_MINOR, "gfx1200"},
    {"rocm", 0x1201, GPU_CODE_MINOR, "gfx1201"}, {NULL, 0, GPU_CODE_MINOR, NULL}};
