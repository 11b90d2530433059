/* Fibers: stacks of their own that give way to each other only when they say so. */
#ifndef TESTS_SUPPORT_SIMT_FIBER_H
#define TESTS_SUPPORT_SIMT_FIBER_H

#include <stdbool.h>
#include <stddef.h>

struct simt_fiber {
    void *stack; /* the lowest address; NULL before the first use */
    void *stack_pointer;
    void *fake_stack; /* ASan's, while the fiber sleeps */
    void (*entry)(void *argument);
    void *argument;
};

/*
 * Make the fiber begin at entry(argument) when it is next resumed, whatever it did before; entry
 * must end with simt_fiber_leave(true). The stack is made once and kept. False without memory.
 */
bool simt_fiber_prepare(struct simt_fiber *fiber, void (*entry)(void *argument), void *argument);

/* Run the fiber until it leaves. Not from within a fiber. */
void simt_fiber_resume(struct simt_fiber *fiber);

/* Give way to the one who resumed this fiber. When it has finished, this does not return. */
void simt_fiber_leave(bool finished);

/* Whether an address lies on the fiber's stack. */
bool simt_fiber_owns(const struct simt_fiber *fiber, const void *address);

#endif
