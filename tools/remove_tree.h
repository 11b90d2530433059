/*
 * A folder and all below it, removed; links are not followed. Tests clear up with it too.
 */
#ifndef KERNELRY_TOOLS_REMOVE_TREE_H
#define KERNELRY_TOOLS_REMOVE_TREE_H

#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>

static inline int remove_entry(const char *path, const struct stat *entry, int type,
                               struct FTW *at) {
    (void)entry;
    (void)type;
    (void)at;
    return remove(path);
}

/** Returns 0 when all is gone. */
static inline int remove_tree(const char *folder) {
    return nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
