/*
 * Model folders: made beside their place and moved there when they are whole.
 */
#ifndef KERNELRY_TOOLS_FOLDER_H
#define KERNELRY_TOOLS_FOLDER_H

#include <kernelry/kernelry.h>

#include <limits.h>

/** A folder that is being made. */
struct new_folder {
    char path[PATH_MAX];      /* where it is to appear */
    char temporary[PATH_MAX]; /* where it is until then */
};

/** Make the temporary folder. Errors: KRY_E_ARGUMENT: `path` is there already, and is no empty
 *  folder; KRY_E_IO. */
kry_status new_folder_begin(struct new_folder *folder, const char *path);

/** With KRY_OK move it into place; with an earlier error remove it and return that error. */
kry_status new_folder_end(struct new_folder *folder, kry_status status);

/** Compose "folder/name". Errors: KRY_E_IO: too long. */
kry_status join_path(char out[PATH_MAX], const char *folder, const char *name);

/**
 * Copy what else belongs to a model (tokenizer, generation config, ...) from one folder into
 * another, folders within it too; not weights in any format, config.json, quantization
 * configs, nor anything whose name starts with a dot. Links to files are followed.
 *
 * Errors     KRY_E_IO names the file.
 */
kry_status copy_companions(const char *from, const char *to);

#endif
