/* Memory of the CPU: large blocks ask for huge pages, which weights are read through faster. */
#include "platform.h"

#include <stdlib.h>
#include <sys/mman.h>

#define HUGE_PAGE (UINT64_C(2) << 20)

void *memory_allocate(uint64_t bytes, size_t alignment) {
    if (bytes == 0)
        bytes = 1;
    if (bytes >= HUGE_PAGE && alignment < HUGE_PAGE)
        alignment = HUGE_PAGE;
    if (alignment < sizeof(void *))
        alignment = sizeof(void *);
    if (bytes > PTRDIFF_MAX - alignment) /* nothing is that large, and sums would overflow */
        return NULL;
    void *memory;
    if (posix_memalign(&memory, alignment, bytes) != 0)
        return NULL;
#ifdef MADV_HUGEPAGE
    /* Whole huge pages alone, so that nothing else on the heap is touched. A kernel that was
       built without them refuses, which costs nothing but speed. */
    if (bytes >= HUGE_PAGE)
        (void)madvise(memory, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
#endif
    return memory;
}

void memory_release(void *memory) { free(memory); }
