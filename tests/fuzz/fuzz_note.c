/*
 * A file that may be a plugin: the note that the core reads before any code of it runs.
 */
#include "core.h"
#include "fuzz.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>

static const kry_status refusals[] = {KRY_E_FORMAT, KRY_E_ABI, KRY_OK};

/* The corpus is of x86-64; where that is not this machine, it is read as if it were. */
static void adapt(uint8_t *file, size_t size) {
#ifndef __x86_64__
    Elf64_Ehdr header;
    if (size < sizeof header)
        return;
    memcpy(&header, file, sizeof header);
    if (header.e_machine == EM_X86_64)
        header.e_machine = EM_AARCH64;
    memcpy(file, &header, sizeof header);
#else
    (void)file;
    (void)size;
#endif
}

/* What the loader, `kernelry plugins` and messages make of it. */
static void check_accepted(const kry_note *note, const uint8_t *file, size_t size) {
    FUZZ_CHECK(memmem(file, size, note, sizeof *note) != NULL);
    FUZZ_CHECK(note->abi_major == KRY_ABI_MAJOR && note->flags == 0);
    FUZZ_CHECK(core_name_is_valid(note->name, sizeof note->name));
    FUZZ_CHECK(core_name_is_valid(note->entry, sizeof note->entry));
    FUZZ_CHECK(strnlen(note->version, sizeof note->version) < sizeof note->version);
    FUZZ_CHECK(note->platforms[0].name[0] != '\0');
    for (size_t i = 0; i < KRY_NOTE_PLATFORMS_MAX && note->platforms[i].name[0] != '\0'; i++)
        FUZZ_CHECK(core_name_is_valid(note->platforms[i].name, sizeof note->platforms[i].name));
    char names[256];
    kry_cpu_features_format(note_cpu_features(note), names, sizeof names);
    FUZZ_CHECK(strnlen(names, sizeof names) < sizeof names);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static fuzz_file file = {.descriptor = -1};
    uint8_t *bytes = malloc(size + 1);
    if (bytes == NULL)
        return 0;
    if (size > 0)
        memcpy(bytes, data, size);
    adapt(bytes, size);
    fuzz_file_write(&file, bytes, size);
    fuzz_forget_error();
    kry_note note, again;
    bool present = false, present_again = false;
    kry_status status = core_note_read(file.descriptor, size, &note, &present);
    if (status != KRY_OK)
        fuzz_check_refusal(status, refusals);
    else if (present)
        check_accepted(&note, bytes, size);
    /* Somebody cut the file after its size was asked for. */
    kry_status cut = core_note_read(file.descriptor, size + 4096, &again, &present_again);
    if (cut != KRY_OK)
        fuzz_check_refusal(cut, refusals);
    else if (status == KRY_OK)
        FUZZ_CHECK(present == present_again &&
                   (!present || memcmp(&note, &again, sizeof note) == 0));
    free(bytes);
    return 0;
}
