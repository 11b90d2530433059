/*
 * What a shared object says of itself: its ELF note, read with pread from an untrusted file
 * before any of its code can run. Every offset is checked against the file's size, and so is
 * every segment's end, so a truncated file is refused here and not by a SIGBUS in the loader;
 * addresses that the loader reads at are checked against what it maps.
 */
#include "core.h"

#include <elf.h>
#include <endian.h>
#include <errno.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    PROGRAM_HEADERS_MAX = 512,
    NOTES_BYTES_MAX = 1 << 20 /* of one segment */
};

#if defined(__x86_64__)
enum { OUR_MACHINE = EM_X86_64 };
#elif defined(__aarch64__)
enum { OUR_MACHINE = EM_AARCH64 };
#else
#error "tell the ELF machine of this platform"
#endif

#if __BYTE_ORDER == __LITTLE_ENDIAN
enum { OUR_DATA = ELFDATA2LSB };
#else
enum { OUR_DATA = ELFDATA2MSB };
#endif

static kry_status read_at(int file, void *to, size_t bytes, uint64_t offset) {
    unsigned char *next = to;
    while (bytes > 0) {
        ssize_t count = pread(file, next, bytes, (off_t)offset);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return kry_error_set(KRY_E_IO, "cannot be read: %s", strerror(errno));
        if (count == 0)
            return kry_error_set(KRY_E_FORMAT, "ends while it is being read");
        next += count;
        bytes -= (size_t)count;
        offset += (uint64_t)count;
    }
    return KRY_OK;
}

static bool fits(uint64_t offset, uint64_t bytes, uint64_t size) {
    return offset <= size && bytes <= size - offset;
}

static kry_status read_header(int file, uint64_t size, Elf64_Ehdr *header) {
    if (size < sizeof *header)
        return kry_error_set(KRY_E_FORMAT, "is not a shared object: %llu bytes are too few",
                             (unsigned long long)size);
    kry_status status = read_at(file, header, sizeof *header, 0);
    if (status != KRY_OK)
        return status;
    if (memcmp(header->e_ident, ELFMAG, SELFMAG) != 0)
        return kry_error_set(KRY_E_FORMAT, "is not a shared object: no ELF magic");
    if (header->e_ident[EI_CLASS] != ELFCLASS64)
        return kry_error_set(KRY_E_FORMAT, "is of ELF class %u, expected 2 (64-bit)",
                             header->e_ident[EI_CLASS]);
    if (header->e_ident[EI_DATA] != OUR_DATA)
        return kry_error_set(KRY_E_FORMAT, "has ELF data encoding %u, this machine has %d",
                             header->e_ident[EI_DATA], OUR_DATA);
    if (header->e_machine != OUR_MACHINE)
        return kry_error_set(KRY_E_FORMAT, "is for ELF machine %u, this one is %d",
                             header->e_machine, OUR_MACHINE);
    if (header->e_type != ET_DYN)
        return kry_error_set(KRY_E_FORMAT, "has ELF type %u, expected 3 (shared object)",
                             header->e_type);
    if (header->e_phentsize != sizeof(Elf64_Phdr) || header->e_phnum == 0 ||
        header->e_phnum > PROGRAM_HEADERS_MAX)
        return kry_error_set(
            KRY_E_FORMAT, "has %u program headers of %u bytes, expected 1 to %d of %zu",
            header->e_phnum, header->e_phentsize, PROGRAM_HEADERS_MAX, sizeof(Elf64_Phdr));
    if (!fits(header->e_phoff, (uint64_t)header->e_phnum * sizeof(Elf64_Phdr), size))
        return kry_error_set(KRY_E_FORMAT, "is truncated: program headers at %llu, %llu bytes",
                             (unsigned long long)header->e_phoff, (unsigned long long)size);
    /* The loader needs no section headers, but where they are promised they close the file. */
    if (header->e_shoff != 0 &&
        !fits(header->e_shoff, (uint64_t)header->e_shnum * header->e_shentsize, size))
        return kry_error_set(KRY_E_FORMAT, "is truncated: section headers at %llu, %llu bytes",
                             (unsigned long long)header->e_shoff, (unsigned long long)size);
    return KRY_OK;
}

/* What is read of a segment in memory, by the system's loader or below: its name, else NULL. */
static const char *name_of_read(const Elf64_Phdr *segment) {
    switch (segment->p_filesz > 0 ? segment->p_type : PT_NULL) {
    case PT_DYNAMIC:
        return "dynamic";
    case PT_TLS:
        return "TLS";
    case PT_NOTE:
        return "note";
    case PT_GNU_PROPERTY:
        return "property";
    default:
        return NULL;
    }
}

/* Whether the bytes of a segment in the file are those that will be read at its address. */
static bool is_mapped(const Elf64_Phdr *segments, size_t count, const Elf64_Phdr *segment) {
    for (size_t i = 0; i < count; i++) {
        const Elf64_Phdr *load = &segments[i];
        uint64_t into = segment->p_vaddr - load->p_vaddr; /* huge where it lies before */
        if (load->p_type == PT_LOAD && (load->p_flags & PF_R) != 0 &&
            fits(into, segment->p_filesz, load->p_filesz) &&
            segment->p_offset - load->p_offset == into)
            return true;
    }
    return false;
}

/* The system's loader follows addresses unchecked: one that leads nowhere ends the process. */
static kry_status check_addresses(const Elf64_Phdr *segments, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const char *name = name_of_read(&segments[i]);
        if (name != NULL && !is_mapped(segments, count, &segments[i]))
            return kry_error_set(KRY_E_FORMAT,
                                 "is damaged: %s segment %zu, %llu bytes at %llu of the file, is "
                                 "not what is mapped at its address %#llx",
                                 name, i, (unsigned long long)segments[i].p_filesz,
                                 (unsigned long long)segments[i].p_offset,
                                 (unsigned long long)segments[i].p_vaddr);
    }
    return KRY_OK;
}

static kry_status check_segments(const Elf64_Phdr *segments, size_t count, uint64_t size) {
    for (size_t i = 0; i < count; i++)
        if (segments[i].p_type != PT_NULL &&
            !fits(segments[i].p_offset, segments[i].p_filesz, size))
            return kry_error_set(KRY_E_FORMAT,
                                 "is truncated: segment %zu has %llu bytes at %llu, the file ends "
                                 "at %llu",
                                 i, (unsigned long long)segments[i].p_filesz,
                                 (unsigned long long)segments[i].p_offset,
                                 (unsigned long long)size);
    return check_addresses(segments, count);
}

bool core_name_is_valid(const char *name, size_t capacity) {
    size_t length = strnlen(name, capacity);
    if (length == 0 || length == capacity)
        return false;
    for (size_t i = 0; i < length; i++) {
        char c = name[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '_' || c == '-' || c == '.'))
            return false;
    }
    return true;
}

/* What a file that was not trusted yet says is printed to terminals. */
static bool is_printable(const char *text, size_t capacity) {
    size_t length = strnlen(text, capacity);
    for (size_t i = 0; i < length; i++)
        if (text[i] < ' ' || text[i] > '~')
            return false;
    return length < capacity;
}

static kry_status check_note(const kry_note *note) {
    if (note->flags != 0)
        return kry_error_set(KRY_E_ABI,
                             "has note flags %#x, which this library (ABI %d.%d) does "
                             "not know (KRY-P12)",
                             note->flags, KRY_ABI_MAJOR, KRY_ABI_MINOR);
    if (!core_name_is_valid(note->name, sizeof note->name))
        return kry_error_set(KRY_E_FORMAT, "has a note whose plugin name is empty, unended or has "
                                           "characters other than letters, digits, '_-.'");
    if (!core_name_is_valid(note->entry, sizeof note->entry))
        return kry_error_set(KRY_E_FORMAT, "has a note whose entry symbol is no symbol");
    if (!is_printable(note->version, sizeof note->version))
        return kry_error_set(KRY_E_FORMAT,
                             "has a note whose version has no end or is not printable ASCII");
    for (size_t i = 0; i < KRY_NOTE_PLATFORMS_MAX; i++) {
        const kry_note_platform *platform = &note->platforms[i];
        if (i > 0 && platform->name[0] == '\0')
            break;
        if (!core_name_is_valid(platform->name, sizeof platform->name))
            return kry_error_set(KRY_E_FORMAT, "has a note whose platform %zu has no valid name",
                                 i);
    }
    return KRY_OK;
}

/* The descriptor of our note; what belongs to another major is not interpreted. */
static kry_status parse_descriptor(const unsigned char *bytes, size_t size, kry_note *out) {
    uint32_t head[3]; /* note_size, abi_major, abi_minor: the same in every major */
    if (size < sizeof head)
        return kry_error_set(KRY_E_FORMAT, "has a damaged note: %zu bytes are too few", size);
    memcpy(head, bytes, sizeof head);
    if (head[1] != KRY_ABI_MAJOR)
        return kry_error_set(KRY_E_ABI, "was built for ABI %u.%u, this library has %d.%d (KRY-P12)",
                             head[1], head[2], KRY_ABI_MAJOR, KRY_ABI_MINOR);
    if (size < sizeof *out || head[0] != size)
        return kry_error_set(KRY_E_FORMAT,
                             "has a damaged note: %zu bytes, it says %u, at least %zu expected",
                             size, head[0], sizeof *out);
    memcpy(out, bytes, sizeof *out);
    return check_note(out);
}

static size_t align_up(size_t value, size_t alignment) {
    return (value + alignment - 1) / alignment * alignment;
}

/* Walk the notes of one segment. Descriptor and next note are aligned as counted from their
 * note's start, which matters where the alignment is 8. Fields are read by memcpy: nothing
 * promises alignment in memory. */
static kry_status parse_notes(const unsigned char *bytes, size_t size, size_t alignment,
                              kry_note *out, bool *present) {
    for (size_t at = 0; size - at >= sizeof(Elf64_Nhdr);) {
        Elf64_Nhdr head;
        memcpy(&head, bytes + at, sizeof head);
        /* Sizes of 32 bits cannot overflow a size_t of 64. */
        size_t descriptor = align_up(sizeof head + head.n_namesz, alignment);
        if (descriptor > size - at || head.n_descsz > size - at - descriptor)
            return kry_error_set(KRY_E_FORMAT, "has a damaged note: it ends beyond its segment");
        if (head.n_type == KRY_NOTE_TYPE && head.n_namesz == sizeof KRY_NOTE_OWNER &&
            memcmp(bytes + at + sizeof head, KRY_NOTE_OWNER, sizeof KRY_NOTE_OWNER) == 0) {
            if (*present)
                return kry_error_set(KRY_E_FORMAT, "has two notes of ours, expected one");
            kry_status status = parse_descriptor(bytes + at + descriptor, head.n_descsz, out);
            if (status != KRY_OK)
                return status;
            *present = true;
        }
        size_t next = align_up(descriptor + head.n_descsz, alignment);
        at = next > size - at ? size : at + next;
    }
    return KRY_OK;
}

static kry_status read_segment(int file, const Elf64_Phdr *segment, kry_note *out, bool *present) {
    if (segment->p_filesz > NOTES_BYTES_MAX)
        return kry_error_set(KRY_E_FORMAT, "has %llu bytes of notes, expected at most %d",
                             (unsigned long long)segment->p_filesz, NOTES_BYTES_MAX);
    size_t size = (size_t)segment->p_filesz;
    unsigned char *bytes = malloc(size > 0 ? size : 1);
    if (bytes == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory while reading notes");
    kry_status status = read_at(file, bytes, size, segment->p_offset);
    if (status == KRY_OK)
        status = parse_notes(bytes, size, segment->p_align == 8 ? 8 : 4, out, present);
    free(bytes);
    return status;
}

kry_status core_note_read(int file, uint64_t size, kry_note *out, bool *present) {
    *present = false;
    Elf64_Ehdr header;
    kry_status status = read_header(file, size, &header);
    if (status != KRY_OK)
        return status;
    Elf64_Phdr segments[PROGRAM_HEADERS_MAX];
    status = read_at(file, segments, header.e_phnum * sizeof segments[0], header.e_phoff);
    if (status == KRY_OK)
        status = check_segments(segments, header.e_phnum, size);
    for (size_t i = 0; i < header.e_phnum && status == KRY_OK; i++)
        if (segments[i].p_type == PT_NOTE)
            status = read_segment(file, &segments[i], out, present);
    return status;
}

struct loaded_note {
    uintptr_t address;
    const kry_note *expected;
    bool same;
};

static int compare_loaded(struct dl_phdr_info *image, size_t size, void *argument) {
    (void)size;
    struct loaded_note *search = argument;
    bool inside = false;
    for (size_t i = 0; i < image->dlpi_phnum; i++) {
        const Elf64_Phdr *segment = &image->dlpi_phdr[i];
        uintptr_t begin = image->dlpi_addr + segment->p_vaddr;
        inside |= segment->p_type == PT_LOAD && search->address >= begin &&
                  search->address - begin < segment->p_memsz;
    }
    for (size_t i = 0; inside && i < image->dlpi_phnum; i++) {
        const Elf64_Phdr *segment = &image->dlpi_phdr[i];
        kry_note note;
        bool present = false;
        if (segment->p_type == PT_NOTE && is_mapped(image->dlpi_phdr, image->dlpi_phnum, segment) &&
            parse_notes((const unsigned char *)(image->dlpi_addr + segment->p_vaddr),
                        segment->p_filesz, segment->p_align == 8 ? 8 : 4, &note,
                        &present) == KRY_OK &&
            present)
            search->same = memcmp(&note, search->expected, sizeof note) == 0;
    }
    return inside;
}

bool core_note_is_loaded(const void *address_inside, const kry_note *note) {
    struct loaded_note search = {(uintptr_t)address_inside, note, false};
    dl_iterate_phdr(compare_loaded, &search);
    return search.same;
}
