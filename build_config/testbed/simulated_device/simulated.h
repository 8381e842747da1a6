// Declarations that the three doubles share. The state is in driver.c; the runtime and cuBLAS ask for it.
#ifndef SIMULATED_H
#define SIMULATED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct simulated_device {
    int    major;
    int    minor;
    size_t memory;  // bytes
    char   name[64];
    char   uuid[41];
};

// The counters. Each name is in the report at exit.
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
    REFUSED,  // calls that a real GPU would refuse, too: wrong pointers, kernels without code
    COUNTERS
};

// Objects that must be freed before exit.
enum simulated_object { STREAMS, EVENTS, GRAPHS, PINNED_BLOCKS, CUBLAS_HANDLES, MEMORY_HANDLES, RESERVATIONS, OBJECTS };

// 0, or the error of the driver API that every call must return: no device, no usable driver, started before a fork.
int simulated_start(void);

int simulated_device_count(void);

// NULL for an unknown index.
const struct simulated_device * simulated_device(int index);

// Whether two devices reach each other's memory: equal ones do.
bool simulated_peers(const struct simulated_device * one, const struct simulated_device * other);

// Whether SIMULATED_FAULT is this one. The number after its colon goes to `argument`, 0 if there is none.
bool simulated_fault_is(const char * name, size_t * argument);

void simulated_count(enum simulated_counter counter, size_t by);
void simulated_live(enum simulated_object object, int change);

// Device memory; NULL if there is not enough. The host cannot use its address: a program that reads it directly ends
// with a segmentation fault, as with a real GPU. With `managed` both sides can use it.
void * simulated_allocate(int device, size_t size, bool managed);

// False for an address that simulated_allocate did not return.
bool simulated_free(void * address);

// The real location of the bytes of a device address. Sets `on_device`; an address of the host is returned unchanged.
// NULL if `size` bytes from there are not inside one allocation.
void * simulated_view(const void * address, size_t size, bool * on_device);

// The device of an address; -1 for one of the host.
int simulated_device_of(const void * address);

void simulated_memory(int device, size_t * free_bytes, size_t * total);

// Let kernels on a device read and write the memory that it reaches, or forbid it again.
void simulated_open(int device, bool open);

// The launch of a kernel. `arguments` are as for cudaLaunchKernel.
struct simulated_launch {
    const char * kernel;  // its mangled name
    int          code;    // the architecture of the machine code that the device takes: 89
    int          device;
    uint32_t     grid[3];
    uint32_t     block[3];
    size_t       shared;          // dynamic shared memory, in bytes
    size_t       allowed_shared;  // what cudaFuncSetAttribute allowed
    bool         cooperative;     // its blocks may wait for one another
    void **      arguments;
};

// Work of a stream. `run` gets `data` (from malloc, of `size` bytes, which may be copied) and returns 0 or an error of the
// runtime API.
struct simulated_work {
    int (*run)(void * data);
    void * data;
    size_t size;
};

// Turn a launch into work; without `run`, there is nothing to do. 0, or an error of the runtime API.
int simulated_prepare(const struct simulated_launch * launch, struct simulated_work * work);

#endif
