/*
 * A switch saves what the calling convention asks a function to keep, and no more: swapcontext
 * would make a system call each time, and a matrix instruction needs 64 switches.
 */
#include "fiber.h"

#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FIBER_ASAN
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define FIBER_ASAN
#endif
#ifdef FIBER_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#else
#define VALGRIND_STACK_REGISTER(start, end) ((void)0)
#endif

/* Unoptimised device code with sanitizers keeps every temporary: 200 kB have been seen. Pages
 * that are never touched cost nothing. */
enum { STACK_BYTES = 512 * 1024 };

/* Saves the registers, then the stack pointer in *from, and goes on where `to` was saved. */
void simt_fiber_switch(void **from, void *to);

#if defined(__x86_64__)
enum { SAVED_WORDS = 6, RETURN_WORD = 6 };
__asm__(".text\n"
        ".globl simt_fiber_switch\n"
        ".hidden simt_fiber_switch\n"
        ".type simt_fiber_switch, @function\n"
        "simt_fiber_switch:\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    ret\n"
        ".size simt_fiber_switch, .-simt_fiber_switch\n");
#elif defined(__aarch64__)
enum { SAVED_WORDS = 20, RETURN_WORD = 11 };
__asm__(".text\n"
        ".globl simt_fiber_switch\n"
        ".hidden simt_fiber_switch\n"
        ".type simt_fiber_switch, %function\n"
        "simt_fiber_switch:\n"
        "    sub sp, sp, #160\n"
        "    stp x19, x20, [sp]\n"
        "    stp x21, x22, [sp, #16]\n"
        "    stp x23, x24, [sp, #32]\n"
        "    stp x25, x26, [sp, #48]\n"
        "    stp x27, x28, [sp, #64]\n"
        "    stp x29, x30, [sp, #80]\n"
        "    stp d8, d9, [sp, #96]\n"
        "    stp d10, d11, [sp, #112]\n"
        "    stp d12, d13, [sp, #128]\n"
        "    stp d14, d15, [sp, #144]\n"
        "    mov x9, sp\n"
        "    str x9, [x0]\n"
        "    mov sp, x1\n"
        "    ldp x19, x20, [sp]\n"
        "    ldp x21, x22, [sp, #16]\n"
        "    ldp x23, x24, [sp, #32]\n"
        "    ldp x25, x26, [sp, #48]\n"
        "    ldp x27, x28, [sp, #64]\n"
        "    ldp x29, x30, [sp, #80]\n"
        "    ldp d8, d9, [sp, #96]\n"
        "    ldp d10, d11, [sp, #112]\n"
        "    ldp d12, d13, [sp, #128]\n"
        "    ldp d14, d15, [sp, #144]\n"
        "    add sp, sp, #160\n"
        "    ret\n"
        ".size simt_fiber_switch, .-simt_fiber_switch\n");
#else
#error "a switch between fibers is written for x86-64 and for 64-bit Arm"
#endif

/* The one who resumes, and the fiber that runs; one operating system thread uses this file. */
static struct {
    void *stack_pointer;
    struct simt_fiber *current;
#ifdef FIBER_ASAN
    void *fake_stack;
    const void *stack;
    size_t stack_bytes;
#endif
} resumer;

static void arrive(void *fake_stack) {
#ifdef FIBER_ASAN
    __sanitizer_finish_switch_fiber(fake_stack, &resumer.stack, &resumer.stack_bytes);
#else
    (void)fake_stack;
#endif
}

static void begin(void) {
    struct simt_fiber *fiber = resumer.current;
    arrive(NULL);
    fiber->entry(fiber->argument);
    __builtin_unreachable(); /* entry has left for good */
}

bool simt_fiber_prepare(struct simt_fiber *fiber, void (*entry)(void *argument), void *argument) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (fiber->stack == NULL) {
        void *map = mmap(NULL, STACK_BYTES + page, PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (map == MAP_FAILED) {
            return false;
        }
        unsigned char *stack = (unsigned char *)map + page; /* below it, a guard */
        if (mprotect(stack, STACK_BYTES, PROT_READ | PROT_WRITE) != 0) {
            munmap(map, STACK_BYTES + page);
            return false;
        }
        fiber->stack = stack;
        (void)VALGRIND_STACK_REGISTER(stack, stack + STACK_BYTES);
    }
#ifdef FIBER_ASAN
    /* A fiber of a failed launch never came back to take the marks of its frames away. */
    __asan_unpoison_memory_region(fiber->stack, STACK_BYTES);
#endif
    fiber->entry = entry;
    fiber->argument = argument;
    fiber->fake_stack = NULL;
    /* As if `begin` had been called and had then called simt_fiber_switch: at its first
     * instruction the stack is off a multiple of 16 by one return address on x86-64. */
    uintptr_t *top = (uintptr_t *)((unsigned char *)fiber->stack + STACK_BYTES) - 4;
    uintptr_t *saved = top - (SAVED_WORDS + (RETURN_WORD == SAVED_WORDS ? 2 : 0));
    for (uintptr_t *word = saved; word < top; word++) {
        *word = 0;
    }
    saved[RETURN_WORD] = (uintptr_t)begin;
    fiber->stack_pointer = saved;
    return true;
}

void simt_fiber_resume(struct simt_fiber *fiber) {
    resumer.current = fiber;
#ifdef FIBER_ASAN
    __sanitizer_start_switch_fiber(&resumer.fake_stack, fiber->stack, STACK_BYTES);
#endif
    simt_fiber_switch(&resumer.stack_pointer, fiber->stack_pointer);
#ifdef FIBER_ASAN
    __sanitizer_finish_switch_fiber(resumer.fake_stack, NULL, NULL);
#endif
}

void simt_fiber_leave(bool finished) {
    struct simt_fiber *fiber = resumer.current;
#ifdef FIBER_ASAN
    __sanitizer_start_switch_fiber(finished ? NULL : &fiber->fake_stack, resumer.stack,
                                   resumer.stack_bytes);
#else
    (void)finished;
#endif
    simt_fiber_switch(&fiber->stack_pointer, resumer.stack_pointer);
    arrive(fiber->fake_stack);
}

bool simt_fiber_owns(const struct simt_fiber *fiber, const void *address) {
    return (uintptr_t)address - (uintptr_t)fiber->stack < STACK_BYTES;
}
