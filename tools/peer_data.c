/*
 * The memory that is shared with peers.
 */
#include "peer_data.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

kry_status peer_data_create(struct peer_data **out) {
    struct peer_data *data = calloc(1, sizeof *data);
    if (data == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    data->descriptor = memfd_create("kernelry-bench", MFD_CLOEXEC);
    if (data->descriptor < 0) {
        free(data);
        return kry_error_set(KRY_E_IO, "no memory to share with peers: %s", strerror(errno));
    }
    *out = data;
    return KRY_OK;
}

static void unmap(struct peer_data *data) {
    if (data->memory != NULL)
        munmap(data->memory, data->bytes);
    data->memory = NULL;
}

void peer_data_destroy(struct peer_data **data) {
    struct peer_data *gone = *data;
    if (gone == NULL)
        return;
    unmap(gone);
    close(gone->descriptor);
    free(gone);
    *data = NULL;
}

/** The next place of so many bytes. */
static uint64_t place(struct peer_data *data, uint64_t bytes) {
    uint64_t at = data->bytes;
    data->bytes += (bytes + KRY_ALIGNMENT - 1) / KRY_ALIGNMENT * KRY_ALIGNMENT;
    return at;
}

static kry_status map(struct peer_data *data) {
    void *memory = MAP_FAILED;
    if (ftruncate(data->descriptor, (off_t)data->bytes) == 0)
        memory = mmap(NULL, data->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, data->descriptor, 0);
    if (memory == MAP_FAILED)
        return kry_error_set(KRY_E_MEMORY, "no memory to share with peers: %s", strerror(errno));
    data->memory = memory;
    return KRY_OK;
}

kry_status peer_data_fill(struct peer_data *data, const struct synthetic *synthetic, const float *x,
                          int64_t m_most) {
    /* Features are at most 2^31 and m below it: in bytes these products stay below 2^64. */
    const kry_linear *linear = &synthetic->linear;
    uint64_t rows = (uint64_t)linear->out_features, columns = (uint64_t)linear->in_features;
    uint64_t scales = rows * (uint64_t)kry_linear_groups(linear), m = (uint64_t)m_most;
    if (m * columns > INT64_MAX / 64 || m * rows > INT64_MAX / 64 || rows * columns > INT64_MAX / 4)
        return kry_error_set(KRY_E_MEMORY, "m %lld is beyond any memory", (long long)m_most);
    unmap(data);
    data->bytes = 0;
    data->codes = place(data, rows * columns);
    data->scales = place(data, scales * sizeof(float));
    data->zero_points = place(data, scales);
    data->x = place(data, m * columns * sizeof(float));
    data->y = place(data, m * rows * sizeof(float));
    kry_status status = map(data);
    if (status != KRY_OK)
        return status;
    memcpy(data->memory + data->codes, synthetic->codes, rows * columns);
    memcpy(data->memory + data->scales, synthetic->plain_scales, scales * sizeof(float));
    if (synthetic->zero_points != NULL)
        memcpy(data->memory + data->zero_points, synthetic->zero_points, scales);
    memcpy(data->memory + data->x, x, m * columns * sizeof(float));
    return KRY_OK;
}

const float *peer_data_y(const struct peer_data *data) {
    return (const float *)(data->memory + data->y);
}
