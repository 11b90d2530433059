/* The fake HIP runtime with a GPU behind it. */
#include "fake_hip.h"
#include "fake_simt.h"

__attribute__((constructor)) static void begin(void) {
    if (fake_simt_begin(&fake_hip))
        fake_hip.execute = fake_simt_run;
}
