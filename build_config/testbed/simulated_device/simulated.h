// What the three doubles share. The state is the driver's: driver.c holds it, the runtime and cuBLAS ask for it.
#ifndef SIMULATED_H
#define SIMULATED_H

#include <stdbool.h>
#include <stddef.h>

struct simulated_device {
    int    major;
    int    minor;
    size_t memory;  // bytes
    char   name[64];
};

// What is counted. Each name stands in the report at exit.
enum simulated_counter {
    ALLOCATIONS,
    COPIES_TO_DEVICE,
    COPIES_FROM_DEVICE,
    COPIES_WITHIN_DEVICE,
    COPIES_WITHIN_HOST,
    BYTES_COPIED,
    MEMSETS,
    LAUNCHES,
    GRAPH_LAUNCHES,
    CUBLAS_CALLS,
    REFUSED,  // calls that a real card would have refused too: wrong pointers, kernels without code
    COUNTERS
};

// Things that must be gone at exit.
enum simulated_object { STREAMS, EVENTS, GRAPHS, PINNED_BLOCKS, CUBLAS_HANDLES, MEMORY_HANDLES, RESERVATIONS, OBJECTS };

// 0, or the error of the driver API that every call has to give: no device, no usable driver.
int simulated_start(void);

int simulated_device_count(void);

// NULL for an index that is not there.
const struct simulated_device * simulated_device(int index);

// Whether SIMULATED_FAULT is this one. What stands behind its colon goes to `argument`, 0 where there is nothing.
bool simulated_fault_is(const char * name, size_t * argument);

void simulated_count(enum simulated_counter counter, size_t by);
void simulated_live(enum simulated_object object, int change);

// Device memory; NULL when there is not enough. Its address can be used by no processor: a program that reads it
// directly ends with a segmentation fault, as with a real card. With `managed` both sides can use it.
void * simulated_allocate(int device, size_t size, bool managed);

// False for an address that simulated_allocate did not return.
bool simulated_free(void * address);

// Where the bytes of a device address really are. Sets `on_device`; for an address of the host returns it as it is.
// NULL when `size` bytes from there do not lie in one allocation.
void * simulated_view(const void * address, size_t size, bool * on_device);

void simulated_memory(int device, size_t * free_bytes, size_t * total);

#endif
