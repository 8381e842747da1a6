// Executes one translated kernel on another machine, or on its emulator: a program of the kernel, the runtime and this file.
//
// Its argument is a file of 64-bit numbers: grid, block, bytes of dynamic shared memory, the number of arrays, their sizes in
// bytes, the number of parameters, the array of each; then the arrays. It is replaced by the reason for a failure (512 bytes),
// the counters of the basic blocks, and the arrays.
#include "ptx_runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const struct ptx_image ptx_image;

enum { MOST = 16, ALIGNMENT = 256, REASON = 512 };

static uint64_t number(FILE * file) {
    uint64_t value = 0;
    if (fread(&value, sizeof value, 1, file) != 1) {
        abort();
    }
    return value;
}

int main(int count, char ** arguments) {
    FILE *            file   = count == 2 ? fopen(arguments[1], "rb") : NULL;
    struct ptx_launch launch = {.image = &ptx_image};
    uint64_t          sizes[MOST], parameters[MOST] = {0};
    char *            arrays[MOST];
    if (file == NULL) {
        return 2;
    }
    for (int i = 0; i < 3; i++) {
        launch.grid[i] = (uint32_t) number(file);
    }
    for (int i = 0; i < 3; i++) {
        launch.block[i] = (uint32_t) number(file);
    }
    launch.dynamic_shared  = (uint32_t) number(file);
    const uint64_t members = number(file);
    for (uint64_t i = 0; i < members; i++) {
        sizes[i]  = number(file);
        arrays[i] = aligned_alloc(ALIGNMENT, (sizes[i] / ALIGNMENT + 1) * ALIGNMENT);
    }
    const uint64_t given = number(file);
    for (uint64_t i = 0; i < given; i++) {
        parameters[i] = (uintptr_t) arrays[number(file)];
    }
    for (uint64_t i = 0; i < members; i++) {
        if (fread(arrays[i], 1, sizes[i], file) != sizes[i]) {
            abort();
        }
    }
    fclose(file);
    launch.parameters     = (const uint8_t *) parameters;
    uint64_t *   executed = calloc(ptx_image.basic_blocks, sizeof *executed);
    const char * said     = ptx_execute(&launch, executed);
    char         reason[REASON] = {0};
    snprintf(reason, sizeof reason, "%s", said != NULL ? said : "");
    file = fopen(arguments[1], "wb");
    fwrite(reason, 1, sizeof reason, file);
    fwrite(executed, sizeof *executed, ptx_image.basic_blocks, file);
    for (uint64_t i = 0; i < members; i++) {
        fwrite(arrays[i], 1, sizes[i], file);
    }
    return fclose(file) == 0 ? 0 : 1;
}
