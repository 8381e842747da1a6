// What a stream has to do: at once, or, while it is captured, whenever the graph is launched.
#ifndef SIMULATED_WORK_H
#define SIMULATED_WORK_H

#include "simulated.h"

#include <stdlib.h>
#include <string.h>

// A piece of work in a graph, with a copy of its data.
struct node {
    struct node *         next;
    struct simulated_work work;
};

struct nodes {
    struct node * first;
    struct node * last;
    size_t        launches;  // of kernels
};

struct CUstream_st {
    bool         recording;
    struct nodes recorded;
};

struct cublasContext {
    struct CUstream_st * stream;
};

// Whether a stream is captured. cudaStreamLegacy and cudaStreamPerThread are small numbers, not addresses.
static inline bool is_recording(const struct CUstream_st * stream) {
    return (uintptr_t) stream > 2 && stream->recording;
}

static inline struct simulated_work work_of(int (*run)(void * data), const void * data, size_t size) {
    struct simulated_work work = {.run = run, .data = malloc(size), .size = size};
    memcpy(work.data, data, size);
    return work;
}

static inline void nodes_add(struct nodes * nodes, struct simulated_work work) {
    struct node * node = malloc(sizeof *node);
    *node              = (struct node) {.work = work};
    if (nodes->last != NULL) {
        nodes->last->next = node;
    } else {
        nodes->first = node;
    }
    nodes->last = node;
}

// Do it, or record it. The data of the work, from malloc, then belongs to the graph. 0, or an error of the runtime API.
static inline int work_do(struct CUstream_st * stream, struct simulated_work work) {
    if (work.run == NULL) {
        return 0;
    }
    if (is_recording(stream)) {
        nodes_add(&stream->recorded, work);
        return 0;
    }
    const int error = work.run(work.data);
    free(work.data);
    return error;
}

#endif
