// What NVIDIA's cudart.lib of CUDA 13 asks the driver's nvcudart_hybrid64.dll for: its functions by number. The build
// reads the numbers from cudart.lib itself. See README.md.
#include "function_numbers.h"

#include <stddef.h>
#include <windows.h>

struct request {
    size_t size;
    int    number;
    int    flags;
    int    version;
};

void * __cudaGetProcAddress(const struct request * request);

void * __cudaGetProcAddress(const struct request * request) {
    for (size_t i = 0; i < sizeof FUNCTIONS / sizeof *FUNCTIONS; i++) {
        if (FUNCTIONS[i].number == request->number) {
            return (void *) FUNCTIONS[i].function;
        }
    }
    return NULL;  // the caller then returns cudaErrorNotSupported
}
