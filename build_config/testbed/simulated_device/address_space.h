// Memory that begins on a page: what Linux and Windows do differently.
#ifndef ADDRESS_SPACE_H
#define ADDRESS_SPACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

#ifdef _WIN32
#    include <malloc.h>
#    include <windows.h>
#else
#    include <sys/mman.h>
#endif

enum { PAGE = 4096 };

// Addresses that nobody else gets; NULL if there are none. Only `usable` ones can be read and written.
static inline void * reserve(size_t size, bool usable) {
#ifdef _WIN32
    return VirtualAlloc(NULL, size, usable ? MEM_RESERVE | MEM_COMMIT : MEM_RESERVE, usable ? PAGE_READWRITE : PAGE_NOACCESS);
#else
    const int protection = usable ? PROT_READ | PROT_WRITE : PROT_NONE;
    void *    address    = mmap(NULL, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return address == MAP_FAILED ? NULL : address;
#endif
}

// Whether the addresses of a whole reservation are free again.
static inline bool give_back(void * address, size_t size) {
#ifdef _WIN32
    (void) size;
    return VirtualFree(address, 0, MEM_RELEASE);
#else
    return munmap(address, size) == 0;
#endif
}

// Memory of the host, as for pinned memory; NULL if there is not enough.
static inline void * allocate_pages(size_t size) {
    const size_t whole = (size + PAGE - 1) / PAGE * PAGE;
#ifdef _WIN32
    return _aligned_malloc(whole, PAGE);
#else
    return aligned_alloc(PAGE, whole);
#endif
}

static inline void free_pages(void * address) {
#ifdef _WIN32
    _aligned_free(address);
#else
    free(address);
#endif
}

#endif
