/* Tests of what happens once a process: each in a process of its own. */
#ifndef KERNELRY_TEST_GPU_IN_CHILD_H
#define KERNELRY_TEST_GPU_IN_CHILD_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* In the child: end it with a sentence unless something holds. */
#define EXPECT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition);          \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

/* A text has these words in it. */
#define EXPECT_WORDS(text, words)                                                                  \
    do {                                                                                           \
        if (strstr(text, words) == NULL) {                                                         \
            fprintf(stderr, "%s:%d: '%s' lacks '%s'\n", __FILE__, __LINE__, text, words);          \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

/* Run a function in a child; true when it came to its end. */
static inline int in_child(void (*function)(void)) {
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        function();
        _exit(0);
    }
    int status = 1;
    return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

#endif
