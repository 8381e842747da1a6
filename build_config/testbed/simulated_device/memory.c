// The memory of the simulated GPU: its addresses are never readable, because its kernels read nothing.
#define _GNU_SOURCE
#include "memory.h"

#include "address_space.h"

struct memory memory_new(int device, size_t size) {
    (void) device;
    return (struct memory) {.address = reserve(size, false), .bytes = reserve(size, true)};
}

void memory_delete(struct memory memory, size_t size) {
    give_back(memory.address, size);
    give_back(memory.bytes, size);
}

struct memory memory_map(int device, void * address, size_t size) {
    (void) device;
    return (struct memory) {.address = address, .bytes = reserve(size, true)};
}

void memory_unmap(struct memory memory, size_t size) {
    give_back(memory.bytes, size);
}

void simulated_open(int device, bool open) {
    (void) device;
    (void) open;
}
