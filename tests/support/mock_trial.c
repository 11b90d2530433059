/*
 * What mock plugins do when they are loaded, in a trial and only there where the test's own process
 * could not bear it.
 */
#include "mock.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int mock_away(void) {
    const char *home = getenv("MOCK_HOME");
    return home != NULL && atoi(home) != getpid();
}

static void stay(void) {
    for (;;)
        pause();
}

static void append_pid(void) {
    const char *path = getenv("MOCK_PIDS");
    FILE *file = path != NULL ? fopen(path, "a") : NULL;
    if (file == NULL)
        _exit(EXIT_FAILURE);
    fprintf(file, "%d\n", (int)getpid());
    fclose(file);
}

void mock_leave_processes(void) {
    if (fork() != 0) {
        sleep(1); /* so that both have come to be; a trial has ten */
        return;
    }
    append_pid();
    setsid(); /* out of its group */
    if (fork() == 0)
        append_pid();
    stay();
}

void mock_return_twice(void) {
    if (fork() < 0)
        abort();
}

void mock_daemonise(void) {
    if (fork() != 0) {
        sleep(1);
        exit(EXIT_SUCCESS);
    }
}

void mock_abort_with_descriptor(void) {
    const char *number = getenv("MOCK_DESCRIPTOR");
    if (number == NULL || fcntl(atoi(number), F_GETFD) >= 0)
        abort();
}

void mock_loop(void) {
    for (volatile int turning = 1; turning;)
        ;
}

void mock_flood(void) {
    static const char line[4096] = "all work and no play";
    for (;;)
        if (write(STDOUT_FILENO, line, sizeof line) < 0 ||
            write(STDERR_FILENO, line, sizeof line) < 0)
            stay();
}

int64_t mock_can_crash(const kry_device *device, const kry_linear *linear, kry_refusal *refusal) {
    (void)device;
    (void)linear;
    (void)refusal;
    raise(SIGSEGV);
    return KRY_ACCEPTED;
}

int64_t mock_can_hang(const kry_device *device, const kry_linear *linear, kry_refusal *refusal) {
    (void)device;
    (void)linear;
    (void)refusal;
    stay();
    return KRY_ACCEPTED;
}
