#include "fixture.h"

struct model model;
struct safetensors file;
struct problem problem;

int setup(void **state) {
    (void)state;
    model_create(&model);
    return 0;
}

int setup_with_problem(void **state) {
    problem_make(&problem, 64, 16, 32, 4, false);
    return setup(state);
}

int teardown(void **state) {
    (void)state;
    model_remove(&model);
    tensors_free(&file);
    problem_free(&problem);
    return 0;
}
