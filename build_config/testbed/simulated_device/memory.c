// The memory of the simulated GPU: its addresses are never readable, because its kernels read nothing.
#define _GNU_SOURCE
#include "memory.h"

#include <sys/mman.h>

static void * map(size_t size, int protection) {
    void * address = mmap(NULL, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return address == MAP_FAILED ? NULL : address;
}

struct memory memory_new(int device, size_t size) {
    (void) device;
    return (struct memory) {.address = map(size, PROT_NONE), .bytes = map(size, PROT_READ | PROT_WRITE)};
}

void memory_delete(struct memory memory, size_t size) {
    munmap(memory.address, size);
    munmap(memory.bytes, size);
}

struct memory memory_map(int device, void * address, size_t size) {
    (void) device;
    return (struct memory) {.address = address, .bytes = map(size, PROT_READ | PROT_WRITE)};
}

void memory_unmap(struct memory memory, size_t size) {
    munmap(memory.bytes, size);
}

void simulated_open(int device, bool open) {
    (void) device;
    (void) open;
}
