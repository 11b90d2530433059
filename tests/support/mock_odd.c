/*
 * Tables, names and answers as no author should make them.
 */
#include "mock.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* Fifteen letters 256 times: ISO C promises string literals of 4095. */
#define FOUR_TIMES(text) text text text text
const char mock_long_text[] = FOUR_TIMES(FOUR_TIMES(FOUR_TIMES(FOUR_TIMES("aaaaaaaaaaaaaaa"))));
const char mock_no_utf8[] = "caf\xe9\xff";

/* ---- tables ------------------------------------------------------------------------------ */

void *mock_at_edge(const void *from, size_t bytes, size_t told) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    unsigned char *pages =
        mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED || bytes > page || mprotect(pages + page, page, PROT_NONE) != 0)
        abort();
    void *copy = pages + page - bytes;
    memcpy(copy, from, bytes);
    memcpy(copy, &told, sizeof told);
    return copy;
}

const kry_plugin *mock_later(const kry_plugin *plugin) {
    enum { MORE = 64 };
    static const kry_kernel *kernels[1];
    kry_kernel kernel = *plugin->kernels[0];
    kernel.linear =
        mock_at_edge(kernel.linear, sizeof *kernel.linear, sizeof *kernel.linear + MORE);
    kernels[0] = mock_at_edge(&kernel, sizeof kernel, sizeof kernel + MORE);
    kry_plugin later = *plugin;
    later.kernels = kernels;
    return mock_at_edge(&later, sizeof later, sizeof later + MORE);
}

const kry_plugin *mock_bring(const kry_plugin *plugin, const kry_platform *platform) {
    static const kry_platform *platforms[1];
    static kry_platform kept; /* what is given lives as long as the call */
    static kry_plugin bringing;
    if (platform != NULL)
        kept = *platform;
    platforms[0] = platform != NULL ? &kept : NULL;
    bringing = *plugin;
    bringing.platforms = platforms;
    bringing.platform_count = 1;
    return &bringing;
}

/* ---- answers ----------------------------------------------------------------------------- */

static void *from_environment(const char *name) {
    const char *text = getenv(name);
    void *address = NULL;
    return text != NULL && sscanf(text, "%p", &address) == 1 ? address : NULL;
}

static void wait_at_gate(void) {
    mock_gate *gate = from_environment("MOCK_GATE");
    if (gate == NULL)
        return;
    atomic_fetch_add(&gate->waiting, 1);
    while (!atomic_load(&gate->open))
        usleep(1000);
}

int64_t mock_can_wait(const kry_device *device, const kry_linear *linear, kry_refusal *refusal) {
    (void)device;
    (void)refusal;
    if (linear->in_features == MOCK_WAITS_FOR)
        wait_at_gate();
    return KRY_ACCEPTED;
}

kry_status mock_open_waiting(const kry_device *device, const kry_host *host, void **state) {
    wait_at_gate();
    return mock_open_device(device, host, state);
}

int64_t mock_can_babble(const kry_device *device, const kry_linear *linear, kry_refusal *refusal) {
    (void)device;
    (void)linear;
    refusal->struct_size = SIZE_MAX;
    refusal->code = UINT32_MAX;
    refusal->found = INT64_MIN;
    refusal->needed = INT64_MAX;
    return INT64_MIN;
}

int64_t mock_can_preach(const kry_device *device, const kry_linear *linear, kry_refusal *refusal) {
    (void)device;
    (void)linear;
    return kry_refuse(refusal, KRY_REFUSAL_OTHER, 1, 2, mock_long_text);
}

const char mock_unclean[] = "caf\xc3\xa9 \x1b[31mred\x07 \xc2\x9b"
                            "2J \xff\nkernelry: error: forged";

int64_t mock_can_forge(const kry_device *device, const kry_linear *linear, kry_refusal *refusal) {
    (void)device;
    (void)linear;
    return kry_refuse(refusal, KRY_REFUSAL_OTHER, 1, 2, mock_unclean);
}

kry_status mock_open_forging(const kry_device *device, const kry_host *host, void **state) {
    (void)device;
    (void)state;
    host->log(host->context, KRY_LOG_WARNING, mock_unclean);
    return mock_fail(KRY_E_DEPENDENCY, mock_unclean);
}

int64_t mock_can_waver(const kry_device *device, const kry_linear *linear, kry_refusal *refusal) {
    (void)device;
    (void)linear;
    kry_refuse(refusal, KRY_REFUSAL_SIZE, 1, 2, "no, but yes");
    return INT64_MAX;
}

void mock_call_back(void) {
    void (*function)(void);
    void *address = from_environment("MOCK_CALL");
    memcpy(&function, &address, sizeof function);
    if (function != NULL)
        function();
}
