/*
 * An import is a word that the loader filled in with a function's address; it says where in
 * the object's table of relocations. Those of functions that allocate or wait are filled in anew
 * here.
 */
#include "hooks.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static atomic_int watched; /* an enum hooks_kind, or 0 */
static int wanted;         /* likewise, of the applies to come */
static _Atomic(const char *) seen;

static void see_kind(enum hooks_kind kind, const char *name) {
    if (atomic_load_explicit(&watched, memory_order_relaxed) == (int)kind)
        atomic_store(&seen, name);
}

/* ---- what allocates ------------------------------------------------------------------------ */

static void see(const char *name) { see_kind(HOOKS_ALLOCATION, name); }

/* What the plugin holds, of what it allocated while it is counted. */
static atomic_bool counting;
static atomic_llong held;

static void *count(void *memory) {
    if (memory != NULL && atomic_load_explicit(&counting, memory_order_relaxed))
        atomic_fetch_add(&held, 1);
    return memory;
}

static void uncount(const void *memory) {
    if (memory != NULL && atomic_load_explicit(&counting, memory_order_relaxed))
        atomic_fetch_sub(&held, 1);
}

static void *seen_malloc(size_t bytes) {
    see("malloc");
    return count(malloc(bytes));
}

static void *seen_calloc(size_t count_of, size_t bytes) {
    see("calloc");
    return count(calloc(count_of, bytes));
}

static void *seen_realloc(void *memory, size_t bytes) {
    see("realloc");
    void *grown = realloc(memory, bytes);
    return memory == NULL ? count(grown) : grown;
}

static void *seen_aligned_alloc(size_t alignment, size_t bytes) {
    see("aligned_alloc");
    return count(aligned_alloc(alignment, bytes));
}

static int seen_posix_memalign(void **out, size_t alignment, size_t bytes) {
    see("posix_memalign");
    int error = posix_memalign(out, alignment, bytes);
    if (error == 0)
        count(*out);
    return error;
}

static void seen_free(void *memory) {
    uncount(memory);
    free(memory);
}

static void seen_sized_delete(void *memory, size_t bytes) {
    (void)bytes;
    seen_free(memory);
}

static void *seen_mmap(void *address, size_t bytes, int protection, int flags, int file,
                       off_t offset) {
    see("mmap");
    return mmap(address, bytes, protection, flags, file, offset);
}

static int seen_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                               void *(*start)(void *), void *argument) {
    see("pthread_create");
    return pthread_create(thread, attributes, start, argument);
}

/* C++'s operator new, which may not return NULL: what the plugin would have got from malloc. */
static void *seen_new(size_t bytes) {
    see("operator new");
    void *memory = malloc(bytes > 0 ? bytes : 1);
    if (memory == NULL)
        abort();
    return count(memory);
}

/* ---- what waits ---------------------------------------------------------------------------- */

static unsigned seen_sleep(unsigned seconds) {
    see_kind(HOOKS_WAIT, "sleep");
    return sleep(seconds);
}

static int seen_usleep(useconds_t microseconds) {
    see_kind(HOOKS_WAIT, "usleep");
    return usleep(microseconds);
}

static int seen_nanosleep(const struct timespec *time, struct timespec *left) {
    see_kind(HOOKS_WAIT, "nanosleep");
    return nanosleep(time, left);
}

static int seen_clock_nanosleep(clockid_t clock, int flags, const struct timespec *time,
                                struct timespec *left) {
    see_kind(HOOKS_WAIT, "clock_nanosleep");
    return clock_nanosleep(clock, flags, time, left);
}

static int seen_poll(struct pollfd *files, nfds_t count, int milliseconds) {
    see_kind(HOOKS_WAIT, "poll");
    return poll(files, count, milliseconds);
}

static int seen_ppoll(struct pollfd *files, nfds_t count_of, const struct timespec *time,
                      const sigset_t *mask) {
    see_kind(HOOKS_WAIT, "ppoll");
    return ppoll(files, count_of, time, mask);
}

static int seen_sem_wait(sem_t *semaphore) {
    see_kind(HOOKS_WAIT, "sem_wait");
    return sem_wait(semaphore);
}

static int seen_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex) {
    see_kind(HOOKS_WAIT, "pthread_cond_wait");
    return pthread_cond_wait(condition, mutex);
}

static int seen_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex,
                                       const struct timespec *time) {
    see_kind(HOOKS_WAIT, "pthread_cond_timedwait");
    return pthread_cond_timedwait(condition, mutex, time);
}

static int seen_pthread_barrier_wait(pthread_barrier_t *barrier) {
    see_kind(HOOKS_WAIT, "pthread_barrier_wait");
    return pthread_barrier_wait(barrier);
}

static int seen_pthread_join(pthread_t thread, void **result) {
    see_kind(HOOKS_WAIT, "pthread_join");
    return pthread_join(thread, result);
}

/* ---- imports ------------------------------------------------------------------------------- */

#define HOOK(name, function)                                                                       \
    { name, (void (*)(void))(function) }
static const struct {
    const char *name;
    void (*function)(void);
} hooks[] = {HOOK("malloc", seen_malloc),
             HOOK("calloc", seen_calloc),
             HOOK("realloc", seen_realloc),
             HOOK("aligned_alloc", seen_aligned_alloc),
             HOOK("posix_memalign", seen_posix_memalign),
             HOOK("free", seen_free),
             HOOK("_ZdlPv", seen_free),
             HOOK("_ZdaPv", seen_free),
             HOOK("_ZdlPvm", seen_sized_delete),
             HOOK("_ZdaPvm", seen_sized_delete),
             HOOK("mmap", seen_mmap),
             HOOK("pthread_create", seen_pthread_create),
             HOOK("_Znwm", seen_new),
             HOOK("_Znam", seen_new),
             HOOK("sleep", seen_sleep),
             HOOK("usleep", seen_usleep),
             HOOK("nanosleep", seen_nanosleep),
             HOOK("clock_nanosleep", seen_clock_nanosleep),
             HOOK("poll", seen_poll),
             HOOK("ppoll", seen_ppoll),
             HOOK("sem_wait", seen_sem_wait),
             HOOK("pthread_cond_wait", seen_pthread_cond_wait),
             HOOK("pthread_cond_timedwait", seen_pthread_cond_timedwait),
             HOOK("pthread_barrier_wait", seen_pthread_barrier_wait),
             HOOK("pthread_join", seen_pthread_join)};

#if defined(__x86_64__)
static bool is_import(uint64_t type) {
    return type == R_X86_64_JUMP_SLOT || type == R_X86_64_GLOB_DAT || type == R_X86_64_64;
}
#elif defined(__aarch64__)
static bool is_import(uint64_t type) {
    return type == R_AARCH64_JUMP_SLOT || type == R_AARCH64_GLOB_DAT || type == R_AARCH64_ABS64;
}
#else
static bool is_import(uint64_t type) {
    (void)type;
    return false;
}
#endif

/* What the dynamic section of a loaded object tells. */
struct object {
    uintptr_t base;
    const Elf64_Sym *symbols;
    const char *names;
    const Elf64_Rela *tables[2];
    size_t bytes[2];
};

static const void *pointer_of(uintptr_t address) {
    const void *pointer;
    memcpy(&pointer, &address, sizeof pointer);
    return pointer;
}

/* Loaders leave addresses relative to the base, or add it in place. */
static const void *place_of(const struct object *object, uintptr_t value) {
    return pointer_of(value < object->base ? value + object->base : value);
}

static void read_dynamic(struct object *object, const Elf64_Dyn *entry) {
    for (; entry->d_tag != DT_NULL; entry++) {
        uintptr_t value = entry->d_un.d_ptr;
        if (entry->d_tag == DT_SYMTAB)
            object->symbols = place_of(object, value);
        else if (entry->d_tag == DT_STRTAB)
            object->names = place_of(object, value);
        else if (entry->d_tag == DT_RELA)
            object->tables[0] = place_of(object, value);
        else if (entry->d_tag == DT_RELASZ)
            object->bytes[0] = value;
        else if (entry->d_tag == DT_JMPREL)
            object->tables[1] = place_of(object, value);
        else if (entry->d_tag == DT_PLTRELSZ)
            object->bytes[1] = value;
    }
}

/* Once relocated, imports may lie in pages that are read-only. */
static bool redirect(uintptr_t slot, void (*function)(void)) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    void *begin = (void *)pointer_of(slot / page * page);
    if (mprotect(begin, slot % page + sizeof function > page ? 2 * page : page,
                 PROT_READ | PROT_WRITE) != 0)
        return false;
    memcpy((void *)pointer_of(slot), &function, sizeof function);
    return true;
}

static bool redirect_imports(const struct object *object) {
    bool good = object->symbols != NULL && object->names != NULL;
    for (int t = 0; t < 2 && good; t++)
        for (size_t i = 0; i < object->bytes[t] / sizeof(Elf64_Rela); i++) {
            const Elf64_Rela *entry = &object->tables[t][i];
            const char *name = object->names + object->symbols[ELF64_R_SYM(entry->r_info)].st_name;
            for (size_t h = 0; h < sizeof hooks / sizeof hooks[0]; h++)
                if (is_import(ELF64_R_TYPE(entry->r_info)) && strcmp(name, hooks[h].name) == 0)
                    good = redirect(object->base + entry->r_offset, hooks[h].function) && good;
        }
    return good;
}

/* The object that dl_iterate_phdr is asked for. */
struct search {
    uintptr_t address;
    struct object object;
    bool found;
};

static int visit(struct dl_phdr_info *info, size_t size, void *argument) {
    struct search *search = argument;
    (void)size;
    const Elf64_Dyn *dynamic = NULL;
    bool holds = false;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const Elf64_Phdr *header = &info->dlpi_phdr[i];
        uintptr_t begin = info->dlpi_addr + header->p_vaddr;
        if (header->p_type == PT_LOAD && search->address >= begin &&
            search->address < begin + header->p_memsz)
            holds = true;
        if (header->p_type == PT_DYNAMIC)
            dynamic = pointer_of(begin);
    }
    if (!holds || dynamic == NULL)
        return 0;
    search->object = (struct object){.base = info->dlpi_addr};
    read_dynamic(&search->object, dynamic);
    search->found = true;
    return 1;
}

bool hooks_install(const void *address) {
    struct search search = {.address = (uintptr_t)address};
    dl_iterate_phdr(visit, &search);
    return search.found && redirect_imports(&search.object);
}

void hooks_begin(enum hooks_kind kind) {
    atomic_store(&seen, NULL);
    wanted = (int)kind;
}

const char *hooks_end(void) {
    wanted = 0;
    return atomic_load(&seen);
}

void hooks_count_begin(void) {
    atomic_store(&held, 0);
    atomic_store(&counting, true);
}

int64_t hooks_count_end(void) {
    atomic_store(&counting, false);
    return atomic_load(&held);
}

void hooks_enter(void) { atomic_store(&watched, wanted); }

void hooks_leave(void) { atomic_store(&watched, 0); }
