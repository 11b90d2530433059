/* Prints the names of a checkpoint's layers. */
#include <kernelry/checkpoint.h>

#include <stdio.h>

int main(int argc, char **argv) {
    kry_checkpoint_layer layer = KRY_INIT(kry_checkpoint_layer);
    kry_checkpoint *checkpoint;
    if (argc != 2 || kry_checkpoint_open(argv[1], NULL, &checkpoint) != KRY_OK) {
        fprintf(stderr, "%s\n", kry_error_message());
        return 1;
    }
    for (size_t i = 0; kry_checkpoint_layer_at(checkpoint, i, &layer) == KRY_OK; i++)
        puts(layer.name);
    kry_checkpoint_close(&checkpoint);
    return 0;
}
