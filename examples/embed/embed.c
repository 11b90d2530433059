/*
 * A serving stack in one screen: open a registry, take a quantized layer from a checkpoint by
 * its name, apply it to random activations, and say which kernel ran.
 *
 *     embed MODEL LAYER        for example: embed models/tiny model.layers.0.mlp.down_proj
 */
#include <kernelry/checkpoint.h>

#include <stdio.h>
#include <stdlib.h>

enum { M = 4, SHOWN = 4 };

/* Everything that main opens, so that one place gives it back. */
struct session {
    kry_registry *registry;
    kry_checkpoint *checkpoint;
    kry_checkpoint_weights *weights;
    kry_layer *layer;
    float *x;
    float *y;
    void *scratch;
    void *zeroed;
};

static void print_log(void *context, int32_t level, const char *message) {
    (void)context;
    if (level <= KRY_LOG_WARNING)
        fprintf(stderr, "kernelry: %s\n", message);
}

/* Take the layer's weights as they are stored, and hold them as the best kernel likes them. */
static kry_status load_layer(struct session *session, const char *model, const char *name,
                             kry_linear *linear) {
    kry_checkpoint_options options = KRY_INIT(kry_checkpoint_options);
    kry_layer_args layer_args = KRY_INIT(kry_layer_args);
    kry_prepare_args prepare_args = KRY_INIT(kry_prepare_args);
    kry_device device = KRY_INIT(kry_device);
    kry_status status;
    size_t index;

    options.log = print_log;
    if ((status = kry_checkpoint_open(model, &options, &session->checkpoint)) != KRY_OK ||
        (status = kry_checkpoint_find_layer(session->checkpoint, name, &index)) != KRY_OK ||
        (status = kry_checkpoint_weights_create(session->checkpoint, index, NULL,
                                                &session->weights)) != KRY_OK ||
        (status = kry_registry_find_device(session->registry, "cpu", &device)) != KRY_OK)
        return status;

    /* The checkpoint says how weights are stored; what x and y are is the caller's choice. */
    *linear = *session->weights->linear;
    linear->x_type = KRY_TYPE_F32;
    linear->y_type = KRY_TYPE_F32;
    layer_args.device = &device;
    layer_args.linear = linear;
    if ((status = kry_layer_create(session->registry, &layer_args, &session->layer)) != KRY_OK)
        return status;
    prepare_args.weights = session->weights->weights;
    return kry_layer_prepare(session->layer, &prepare_args);
}

/* Memory for an apply of up to M rows, made once and used again and again by a real stack. */
static kry_status make_buffers(struct session *session, const kry_linear *linear,
                               kry_apply_args *args) {
    kry_workspace workspace = KRY_INIT(kry_workspace);
    kry_status status = kry_layer_workspace(session->layer, M, &workspace);
    if (status != KRY_OK)
        return status;
    /* Rounded up, because aligned_alloc asks for a multiple, and never nothing. */
    session->scratch =
        aligned_alloc(KRY_ALIGNMENT, (workspace.scratch_bytes / KRY_ALIGNMENT + 1) * KRY_ALIGNMENT);
    session->zeroed =
        aligned_alloc(KRY_ALIGNMENT, (workspace.zeroed_bytes / KRY_ALIGNMENT + 1) * KRY_ALIGNMENT);
    session->x = calloc(M * (size_t)linear->in_features, sizeof *session->x);
    session->y = calloc(M * (size_t)linear->out_features, sizeof *session->y);
    if (session->scratch == NULL || session->zeroed == NULL || session->x == NULL ||
        session->y == NULL)
        return kry_error_set(KRY_E_MEMORY, "no memory for %d rows of x and y", M);
    for (uint64_t i = 0; i < workspace.zeroed_bytes; i++)
        ((char *)session->zeroed)[i] = 0;
    for (int64_t i = 0; i < M * linear->in_features; i++)
        session->x[i] = (float)rand() / (float)RAND_MAX - 0.5F;
    args->m = M;
    args->x = session->x;
    args->y = session->y;
    args->scratch = session->scratch;
    args->scratch_bytes = workspace.scratch_bytes;
    args->zeroed = session->zeroed;
    args->zeroed_bytes = workspace.zeroed_bytes;
    return KRY_OK;
}

int main(int argc, char **argv) {
    struct session session = {0};
    kry_linear linear = KRY_INIT(kry_linear);
    kry_apply_args apply_args = KRY_INIT(kry_apply_args);
    kry_kernel_info kernel = KRY_INIT(kry_kernel_info);
    kry_status status;

    if (argc != 3) {
        fprintf(stderr, "usage: %s MODEL LAYER\n", argv[0]);
        return 2;
    }
    if ((status = kry_registry_open(NULL, &session.registry)) != KRY_OK ||
        (status = load_layer(&session, argv[1], argv[2], &linear)) != KRY_OK ||
        (status = make_buffers(&session, &linear, &apply_args)) != KRY_OK ||
        (status = kry_layer_apply(session.layer, &apply_args)) != KRY_OK ||
        (status = kry_layer_kernel(session.layer, &kernel)) != KRY_OK) {
        fprintf(stderr, "embed: %s: %s\n", kry_status_string(status), kry_error_message());
        goto out;
    }
    printf("%s %lldx%lld runs on kernel %s of plugin %s\ny =", argv[2],
           (long long)linear.in_features, (long long)linear.out_features, kernel.kernel,
           kernel.plugin);
    for (int64_t n = 0; n < SHOWN && n < linear.out_features; n++)
        printf(" %g", (double)session.y[n]);
    printf(" ...\n");
out:
    free(session.zeroed);
    free(session.scratch);
    free(session.y);
    free(session.x);
    kry_layer_destroy(&session.layer);
    kry_checkpoint_weights_destroy(&session.weights);
    kry_checkpoint_close(&session.checkpoint);
    kry_registry_close(&session.registry);
    return status == KRY_OK ? 0 : 1;
}
