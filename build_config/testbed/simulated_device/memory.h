// Where the memory of a device is: memory.c of the simulated GPU, or of the emulated one, whose kernels read and write it.
#ifndef SIMULATED_MEMORY_H
#define SIMULATED_MEMORY_H

#include "simulated.h"

// A program gets `address`, which it cannot read; the content is at `bytes`.
struct memory {
    void * address;
    char * bytes;
};

struct memory memory_new(int device, size_t size);
void          memory_delete(struct memory memory, size_t size);

// Memory at an address that the program reserved.
struct memory memory_map(int device, void * address, size_t size);
void          memory_unmap(struct memory memory, size_t size);

#endif
