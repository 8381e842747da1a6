// The memory of the emulated GPU: mapped twice, once for the doubles and once at the address that the program has. The
// second mapping can be used only while a kernel runs. Unreadable pages surround each allocation, and its end is theirs, up
// to the alignment that CUDA promises. New memory is poisoned: each byte is 0xFF, so that each number of it is NaN.
#define _GNU_SOURCE
#include "memory.h"

#include "address_space.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ALIGNMENT = 256, GUARD = 1 << 20, POISON = 0xFF };

// What is opened and closed: whole pages.
struct region {
    char * start;
    size_t size;
    int    device;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct region * regions;
static size_t          region_count, region_space;
static int             open_for = -1;  // the device whose kernel runs

static size_t round_up(size_t size, size_t to) {
    return (size + to - 1) / to * to;
}

static _Noreturn void give_up(const char * what) {
    fprintf(stderr, "emulated device: %s\n", what);
    abort();
}

static bool reaches(int device, int owner) {
    return device >= 0 && (device == owner || simulated_peers(simulated_device(device), simulated_device(owner)));
}

static void add_region(struct region region) {
    pthread_mutex_lock(&mutex);
    if (region_count == region_space) {
        region_space = region_space != 0 ? 2 * region_space : 64;
        regions      = realloc(regions, region_space * sizeof *regions);
    }
    regions[region_count++] = region;
    if (reaches(open_for, region.device)) {  // another thread of the host runs a kernel
        mprotect(region.start, region.size, PROT_READ | PROT_WRITE);
    }
    pthread_mutex_unlock(&mutex);
}

static struct region take_region(const char * start) {
    struct region found = {0};
    pthread_mutex_lock(&mutex);
    for (size_t i = 0; i < region_count; i++) {
        if (regions[i].start == start) {
            found      = regions[i];
            regions[i] = regions[--region_count];
            break;
        }
    }
    pthread_mutex_unlock(&mutex);
    return found;
}

// The content of `size` bytes, and its second mapping at `address`.
static char * map_twice(char * address, size_t size) {
    const int file = memfd_create("emulated-device", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, (off_t) size) != 0) {
        give_up("there is no memory left");
    }
    char * bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (bytes == MAP_FAILED || mmap(address, size, PROT_NONE, MAP_SHARED | MAP_FIXED, file, 0) != address) {
        give_up("memory cannot be mapped");
    }
    close(file);
    return bytes;
}

struct memory memory_new(int device, size_t size) {
    const size_t whole = round_up(size, PAGE);
    char * const space = reserve(whole + 2UL * GUARD, false);
    if (space == NULL) {
        give_up("there are no addresses left");
    }
    char * const start = space + GUARD;
    char * const bytes = map_twice(start, whole);
    const size_t skip  = whole - round_up(size, ALIGNMENT);
    add_region((struct region) {.start = start, .size = whole, .device = device});
    memset(bytes, POISON, whole);
    return (struct memory) {.address = start + skip, .bytes = bytes + skip};
}

void memory_delete(struct memory memory, size_t size) {
    const size_t        skip   = round_up(size, PAGE) - round_up(size, ALIGNMENT);
    const struct region region = take_region((char *) memory.address - skip);
    give_back(region.start - GUARD, region.size + 2UL * GUARD);
    munmap(memory.bytes - skip, region.size);
}

struct memory memory_map(int device, void * address, size_t size) {
    char * const bytes = map_twice(address, size);
    add_region((struct region) {.start = address, .size = size, .device = device});
    memset(bytes, POISON, size);
    return (struct memory) {.address = address, .bytes = bytes};
}

void memory_unmap(struct memory memory, size_t size) {
    take_region(memory.address);
    mmap(memory.address, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    munmap(memory.bytes, size);
}

void simulated_open(int device, bool open) {
    pthread_mutex_lock(&mutex);
    open_for = open ? device : -1;
    for (size_t i = 0; i < region_count; i++) {
        if (reaches(device, regions[i].device)) {
            mprotect(regions[i].start, regions[i].size, open ? PROT_READ | PROT_WRITE : PROT_NONE);
        }
    }
    pthread_mutex_unlock(&mutex);
}
