/*
 * Writes model folders for tests: text files, safetensors files, and what was logged of them.
 */
#ifndef KERNELRY_TESTS_CHECKPOINT_WRITER_H
#define KERNELRY_TESTS_CHECKPOINT_WRITER_H

#include <kernelry/checkpoint.h>

#include <stdbool.h>

/* ---- a folder ------------------------------------------------------------------------- */

/** A temporary folder with files in it, and the checkpoint opened on it. */
struct model {
    char folder[64];
    kry_checkpoint *checkpoint;
    char log[16384]; /* every line that was logged, '\n' after each */
    int log_count;
};

void model_create(struct model *model);
/** Close the checkpoint, remove the folder and all files in it. */
void model_remove(struct model *model);

/** The path of a file in the folder; valid until the next call. */
const char *model_path(const struct model *model, const char *name);
void model_write(const struct model *model, const char *name, const void *bytes, size_t size);
void model_text(const struct model *model, const char *name, const char *format, ...)
    KRY_PRINTF(3, 4);

/** Open the folder (name NULL) or a file in it. Closes what was open, forgets what was logged. */
kry_status model_open(struct model *model, const char *name);
/** Open the folder; fails the test with the error's sentence. */
void model_open_well(struct model *model);
/** Open the folder; fails the test unless the status is that and the sentence has each part. */
#define model_open_badly(model, status, ...)                                                       \
    model_open_badly_list(model, status, (const char *const[]){__VA_ARGS__, NULL}, __FILE__,       \
                          __LINE__)
void model_open_badly_list(struct model *model, kry_status status, const char *const *parts,
                           const char *file, int line);
/** Fail the test unless the last error's sentence has the part. */
void assert_message(const char *part);
/** Fail the test unless some logged line has the part. */
void assert_logged(const struct model *model, const char *part);

/* ---- a safetensors file --------------------------------------------------------------- */

struct entry {
    char name[128];
    char dtype[16];
    int64_t shape[8];
    uint32_t rank;
    void *data; /* owned; NULL: a hole in the file */
    size_t bytes;
};

struct safetensors {
    struct entry *entries;
    size_t count;
    size_t misalign; /* data begins at this residue modulo 8 */
};

/** Add a tensor; data (NULL: a hole) is copied. `shape` as "4x5". */
void tensors_add(struct safetensors *file, const char *name, const char *dtype, const char *shape,
                 const void *data);
/** Likewise, of a module: name is "module.suffix". */
void tensors_add_of(struct safetensors *file, const char *module, const char *suffix,
                    const char *dtype, int64_t rows, int64_t columns, const void *data);
/** The entry of that name, for tests that spoil one. */
struct entry *tensors_find(struct safetensors *file, const char *name);
void tensors_drop(struct safetensors *file, const char *name);
void tensors_write(const struct safetensors *file, const struct model *model, const char *name);
void tensors_free(struct safetensors *file);

/** A file of that header and so many bytes of data behind it. */
void raw_write(const struct model *model, const char *name, const char *header, size_t data_bytes);

#endif
