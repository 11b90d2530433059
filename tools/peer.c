/*
 * Peers: starting their processes, and asking them.
 */
#include "peer.h"

#include "clock.h"
#include "peer_data.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    DATA_DESCRIPTOR = 3, /* where a peer finds the shared memory */
    LINE_MOST = 1 << 20, /* bytes of an answer */
    END_NS = 2000000000, /* how long a peer may take to end by itself */
    COULD_NOT_EXECUTE = 127
};

struct peer {
    char name[64]; /* "onnxruntime int8" */
    char version[64];
    pid_t process; /* 0: gone */
    int in;        /* its standard input */
    int out;
    int64_t timeout;
    char *line; /* LINE_MOST bytes: what it said, a line or the beginning of one */
    size_t said;
};

/* ---- the process --------------------------------------------------------------------- */

/** In the child: become the peer. Nothing here may allocate: the parent has threads. */
_Noreturn static void become(const struct peer_command *command, char *const *arguments, int in,
                             int out, int data, pid_t parent) {
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* a stopped process would outlive us for ever */
    signal(SIGPIPE, SIG_DFL);
    bool placed =
        getppid() == parent && dup2(in, STDIN_FILENO) >= 0 && dup2(out, STDOUT_FILENO) >= 0 &&
        (data == DATA_DESCRIPTOR ? fcntl(data, F_SETFD, 0) >= 0 : dup2(data, DATA_DESCRIPTOR) >= 0);
    if (placed)
        execvp(command->python, arguments);
    _exit(COULD_NOT_EXECUTE);
}

/** Two pipes, closed in a child that executes. */
static bool make_pipes(int to[2], int from[2]) {
    if (pipe2(to, O_CLOEXEC) != 0)
        return false;
    if (pipe2(from, O_CLOEXEC) == 0)
        return true;
    close(to[0]);
    close(to[1]);
    return false;
}

static kry_status spawn(struct peer *peer, const struct peer_command *command, int data) {
    char script[4096], threads[16];
    int to[2], from[2];
    if (snprintf(script, sizeof script, "%s/peer_%s.py", command->folder, command->library) >=
        (int)sizeof script)
        return kry_error_set(KRY_E_ARGUMENT, "%s: the path is too long", command->folder);
    snprintf(threads, sizeof threads, "%" PRId32, command->threads);
    char *const arguments[] = {(char *)(uintptr_t)command->python, script,
                               (char *)(uintptr_t)command->compute, threads, NULL};
    if (!make_pipes(to, from))
        return kry_error_set(KRY_E_IO, "%s: no pipe: %s", peer->name, strerror(errno));
    pid_t parent = getpid();
    pid_t child = fork();
    if (child == 0)
        become(command, arguments, to[0], from[1], data, parent);
    close(to[0]);
    close(from[1]);
    peer->in = to[1];
    peer->out = from[0];
    if (child < 0)
        return kry_error_set(KRY_E_IO, "%s: no process: %s", peer->name, strerror(errno));
    peer->process = child;
    return KRY_OK;
}

/** Wait for the end of the process until a time; then end it. Returns its status. */
static int reap(struct peer *peer, int64_t until) {
    int status = 0;
    kill(peer->process, SIGCONT);
    for (;;) {
        pid_t ended = waitpid(peer->process, &status, WNOHANG);
        if (ended == peer->process || (ended < 0 && errno != EINTR))
            break;
        if (clock_now() >= until)
            kill(peer->process, SIGKILL);
        poll(NULL, 0, 1);
    }
    peer->process = 0;
    return status;
}

/** Give a peer up that said something wrong, or nothing. */
static kry_status lose(struct peer *peer, const char *trouble) {
    reap(peer, 0);
    return kry_error_set(KRY_E_IO, "%s: %s", peer->name, trouble);
}

/** Give a peer up that has ended. */
static kry_status bury(struct peer *peer) {
    int status = reap(peer, clock_now() + END_NS);
    if (WIFSIGNALED(status))
        return kry_error_set(KRY_E_IO, "%s: killed by signal %d (%s)", peer->name, WTERMSIG(status),
                             strsignal(WTERMSIG(status)));
    if (WEXITSTATUS(status) == COULD_NOT_EXECUTE)
        return kry_error_set(KRY_E_IO, "%s: its Python could not be run (--python)", peer->name);
    return kry_error_set(KRY_E_IO, "%s: ended with exit status %d", peer->name,
                         WEXITSTATUS(status));
}

/* ---- asking -------------------------------------------------------------------------- */

/** Read up to the end of a line; *length is that of the line. */
static kry_status read_line(struct peer *peer, size_t *length) {
    int64_t until = clock_now() + peer->timeout;
    for (;;) {
        char *end = memchr(peer->line, '\n', peer->said);
        if (end != NULL) {
            *length = (size_t)(end - peer->line);
            return KRY_OK;
        }
        if (peer->said == LINE_MOST)
            return lose(peer, "its answer has no end");
        int64_t left = until - clock_now();
        struct pollfd ready = {.fd = peer->out, .events = POLLIN};
        int count = left > 0 ? poll(&ready, 1, (int)(left / 1000000) + 1) : 0;
        if (count == 0)
            return lose(peer, "no answer in time");
        ssize_t got =
            count > 0 ? read(peer->out, peer->line + peer->said, LINE_MOST - peer->said) : -1;
        if (got == 0)
            return bury(peer);
        if (got < 0 && errno != EINTR)
            return lose(peer, strerror(errno));
        peer->said += got > 0 ? (size_t)got : 0;
    }
}

/** Read an answer: an object that says ok, or why not. *out is a new reference. */
static kry_status read_answer(struct peer *peer, json_t **out) {
    size_t length = 0;
    kry_status status = read_line(peer, &length);
    if (status != KRY_OK)
        return status;
    json_t *answer = json_loadb(peer->line, length, JSON_REJECT_DUPLICATES, NULL);
    peer->said -= length + 1;
    memmove(peer->line, peer->line + length + 1, peer->said);
    json_t *ok = json_object_get(answer, "ok");
    const char *reason = json_string_value(json_object_get(answer, "reason"));
    if (json_is_true(ok)) {
        *out = answer;
        return KRY_OK;
    }
    if (json_is_false(ok) && reason != NULL)
        status = kry_error_set(KRY_E_UNSUPPORTED, "%s: %s", peer->name, reason);
    else
        status = lose(peer, "what it said is no answer");
    json_decref(answer);
    return status;
}

/** Write a request, with its end of line. */
static bool write_request(const struct peer *peer, const char *text) {
    size_t length = strlen(text);
    while (length > 0) {
        ssize_t put = write(peer->in, text, length);
        if (put < 0 && errno != EINTR)
            return false;
        text += put > 0 ? put : 0;
        length -= put > 0 ? (size_t)put : 0;
    }
    return write(peer->in, "\n", 1) == 1;
}

/** Ask; the request's reference is taken. The peer runs while it is asked, and then no more. */
static kry_status ask(struct peer *peer, json_t *request, json_t **answer) {
    char *text = request != NULL ? json_dumps(request, JSON_COMPACT) : NULL;
    json_decref(request);
    if (text == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    kry_status status;
    if (peer->process == 0) {
        status = kry_error_set(KRY_E_STATE, "%s: its process is gone", peer->name);
    } else {
        kill(peer->process, SIGCONT);
        status = write_request(peer, text) ? read_answer(peer, answer) : bury(peer);
        if (peer->process != 0)
            kill(peer->process, SIGSTOP);
    }
    free(text);
    return status;
}

static kry_status ask_briefly(struct peer *peer, json_t *request) {
    json_t *answer = NULL;
    kry_status status = ask(peer, request, &answer);
    json_decref(answer);
    return status;
}

/* ---- requests ------------------------------------------------------------------------ */

kry_status peer_start(const struct peer_command *command, const struct peer_data *data,
                      struct peer **out) {
    struct peer *peer = calloc(1, sizeof *peer);
    char *line = malloc(LINE_MOST);
    if (peer == NULL || line == NULL) {
        free(line);
        free(peer);
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    }
    peer->line = line;
    peer->in = peer->out = -1;
    peer->timeout = command->timeout;
    snprintf(peer->name, sizeof peer->name, "%.40s %.20s", command->library, command->compute);
    json_t *answer = NULL;
    kry_status status = spawn(peer, command, data->descriptor);
    if (status == KRY_OK)
        status = read_answer(peer, &answer);
    if (status != KRY_OK) {
        peer_end(&peer);
        return status;
    }
    kill(peer->process, SIGSTOP);
    const char *version = json_string_value(json_object_get(answer, "version"));
    snprintf(peer->version, sizeof peer->version, "%.60s", version != NULL ? version : "unknown");
    json_decref(answer);
    *out = peer;
    return KRY_OK;
}

void peer_end(struct peer **peer) {
    struct peer *gone = *peer;
    if (gone == NULL)
        return;
    if (gone->in >= 0)
        close(gone->in); /* which tells it to end */
    if (gone->process != 0)
        reap(gone, clock_now() + END_NS);
    if (gone->out >= 0)
        close(gone->out);
    free(gone->line);
    free(gone);
    *peer = NULL;
}

const char *peer_version(const struct peer *peer) { return peer->version; }

kry_status peer_prepare(struct peer *peer, const struct peer_data *data,
                        const struct synthetic *synthetic, size_t copies) {
    const kry_linear *linear = &synthetic->linear;
    json_t *request = json_pack(
        "{ss sI sI sI sI si sI sI sI sI sI}", "do", "prepare", "in_features",
        (json_int_t)linear->in_features, "out_features", (json_int_t)linear->out_features,
        "group_size",
        (json_int_t)(linear->group_size < 0 ? linear->in_features : linear->group_size), "groups",
        (json_int_t)kry_linear_groups(linear), "bits", (int)kry_weight_bits(linear->weight_type),
        "copies", (json_int_t)copies, "codes", (json_int_t)data->codes, "scales",
        (json_int_t)data->scales, "x", (json_int_t)data->x, "y", (json_int_t)data->y);
    if (request != NULL && synthetic->zero_points != NULL)
        json_object_set_new(request, "zero_points", json_integer((json_int_t)data->zero_points));
    if (linear->act_order || linear->k_offset % (linear->group_size < 0 ? 1 : linear->group_size)) {
        json_decref(request);
        return kry_error_set(KRY_E_UNSUPPORTED,
                             "%s: not asked: act-order, or a partition that "
                             "starts inside a group",
                             peer->name);
    }
    return ask_briefly(peer, request);
}

kry_status peer_check(struct peer *peer, int64_t m) {
    return ask_briefly(peer, json_pack("{ss sI}", "do", "check", "m", (json_int_t)m));
}

/** Take the times out of an answer to run, which cannot be longer than `most` together. */
static bool read_times(const json_t *answer, size_t applies, int64_t most, int64_t *nanoseconds) {
    const json_t *times = json_object_get(answer, "nanoseconds");
    if (json_array_size(times) != applies)
        return false;
    int64_t sum = 0;
    for (size_t i = 0; i < applies; i++) {
        int64_t time = json_integer_value(json_array_get(times, i));
        if (time <= 0 || time > most)
            return false;
        nanoseconds[i] = time;
        sum += time;
    }
    return sum <= most;
}

kry_status peer_run(struct peer *peer, int64_t m, size_t uncounted, size_t applies,
                    int64_t *nanoseconds) {
    json_t *answer = NULL;
    int64_t begin = clock_now();
    kry_status status = ask(peer,
                            json_pack("{ss sI sI sI}", "do", "run", "m", (json_int_t)m, "uncounted",
                                      (json_int_t)uncounted, "applies", (json_int_t)applies),
                            &answer);
    if (status == KRY_OK && !read_times(answer, applies, clock_now() - begin, nanoseconds))
        status = lose(peer, "the times that it told cannot be");
    json_decref(answer);
    return status;
}

kry_status peer_release(struct peer *peer) {
    return ask_briefly(peer, json_pack("{ss}", "do", "release"));
}
