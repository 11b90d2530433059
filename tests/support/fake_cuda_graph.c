/*
 * Streams, graphs and modules of the fake CUDA driver. What is enqueued on a stream that captures
 * is kept, and run by each launch of the graph.
 */
#include "fake_cuda.h"

#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_VALUE = 1, NOT_FOUND = 500, STREAMS_MOST = 16, ARGUMENT_MOST = 128 };

struct node {
    struct fake_launch launch; /* where run is NULL */
    void (*run)(const void *argument);
    unsigned char argument[ARGUMENT_MOST];
};

struct graph {
    struct node *nodes;
    size_t count;
};

static struct stream {
    int used;
    struct graph *capture; /* NULL: none */
} streams[STREAMS_MOST];

static struct stream *stream_of(void *stream) {
    for (size_t i = 0; i < STREAMS_MOST; i++)
        if (stream == &streams[i] && streams[i].used)
            return stream;
    return NULL;
}

bool fake_cuda_is_capturing(void *stream) {
    const struct stream *found = stream_of(stream);
    return found != NULL && found->capture != NULL;
}

static struct node *add_node(void *stream) {
    struct graph *graph = stream_of(stream)->capture;
    struct node *nodes = realloc(graph->nodes, (graph->count + 1) * sizeof *nodes);
    if (nodes == NULL)
        abort();
    graph->nodes = nodes;
    nodes[graph->count] = (struct node){.run = NULL};
    return &nodes[graph->count++];
}

bool fake_cuda_capture(const struct fake_launch *launch) {
    if (!fake_cuda_is_capturing(launch->stream))
        return false;
    add_node(launch->stream)->launch = *launch;
    return true;
}

void fake_cuda_enqueue(void *stream, void (*run)(const void *argument), const void *argument,
                       size_t bytes) {
    if (!fake_cuda_is_capturing(stream)) {
        run(argument);
        return;
    }
    struct node *node = add_node(stream);
    if (bytes > ARGUMENT_MOST)
        abort();
    node->run = run;
    memcpy(node->argument, argument, bytes);
}

/* ---- streams --------------------------------------------------------------------------- */

int cuStreamCreate(void **stream, unsigned flags);
int cuStreamCreate(void **stream, unsigned flags) {
    if (fake_cuda.failing != NULL && strcmp(fake_cuda.failing, __func__) == 0)
        return fake_cuda.error;
    for (size_t i = 0; i < STREAMS_MOST && flags <= 1; i++)
        if (!streams[i].used) {
            streams[i] = (struct stream){.used = 1};
            *stream = &streams[i];
            return SUCCESS;
        }
    return INVALID_VALUE;
}

int cuStreamDestroy_v2(void *stream);
int cuStreamDestroy_v2(void *stream) {
    struct stream *found = stream_of(stream);
    if (found == NULL)
        return INVALID_VALUE;
    found->used = 0;
    return SUCCESS;
}

int cuStreamBeginCapture_v2(void *stream, int mode);
int cuStreamBeginCapture_v2(void *stream, int mode) {
    struct stream *found = stream_of(stream); /* the default stream cannot be captured */
    if (found == NULL || found->capture != NULL || mode < 0 || mode > 2)
        return INVALID_VALUE;
    found->capture = calloc(1, sizeof *found->capture);
    return found->capture != NULL ? SUCCESS : INVALID_VALUE;
}

int cuStreamEndCapture(void *stream, void **graph);
int cuStreamEndCapture(void *stream, void **graph) {
    struct stream *found = stream_of(stream);
    if (found == NULL || found->capture == NULL)
        return INVALID_VALUE;
    *graph = found->capture;
    found->capture = NULL;
    return SUCCESS;
}

/* ---- graphs ---------------------------------------------------------------------------- */

int cuGraphDestroy(void *graph);
int cuGraphDestroy(void *graph) {
    free(((struct graph *)graph)->nodes);
    free(graph);
    return SUCCESS;
}

int cuGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long flags);
int cuGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long flags) {
    const struct graph *from = graph;
    struct graph *copy = calloc(1, sizeof *copy);
    if (copy == NULL || flags != 0 ||
        (copy->nodes = malloc((from->count + 1) * sizeof *copy->nodes)) == NULL) {
        free(copy);
        return INVALID_VALUE;
    }
    copy->count = from->count;
    if (from->count > 0)
        memcpy(copy->nodes, from->nodes, from->count * sizeof *copy->nodes);
    *executable = copy;
    return SUCCESS;
}

int cuGraphExecDestroy(void *executable);
int cuGraphExecDestroy(void *executable) { return cuGraphDestroy(executable); }

int cuGraphLaunch(void *executable, void *stream);
int cuGraphLaunch(void *executable, void *stream) {
    const struct graph *graph = executable;
    int error = fake_cuda_is_capturing(stream) ? INVALID_VALUE : SUCCESS;
    for (size_t i = 0; i < graph->count && error == SUCCESS; i++) {
        const struct node *node = &graph->nodes[i];
        if (node->run != NULL)
            node->run(node->argument);
        else
            error = fake_cuda_run(&node->launch);
    }
    fake_cuda.graph_launches++;
    return error;
}

/* ---- modules, whose only kernel reads ----------------------------------------------------- */

int cuModuleLoadData(void **module, const void *code);
int cuModuleLoadData(void **module, const void *code) {
    if (strncmp(code, ".version", strlen(".version")) != 0) /* the driver's compiler takes PTX */
        return INVALID_VALUE;
    *module = &fake_cuda;
    return SUCCESS;
}

int cuModuleUnload(void *module);
int cuModuleUnload(void *module) { return module == &fake_cuda ? SUCCESS : INVALID_VALUE; }

int cuModuleGetFunction(void **function, void *module, const char *name);
int cuModuleGetFunction(void **function, void *module, const char *name) {
    static char reads[] = FAKE_READS;
    if (module != &fake_cuda || strcmp(name, FAKE_READS) != 0)
        return NOT_FOUND;
    *function = reads;
    return SUCCESS;
}
