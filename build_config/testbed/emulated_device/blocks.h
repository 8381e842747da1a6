// One block of a grid: coroutines for its threads, their warps and barriers. blocks.c executes it, ptx_runtime.c calls it.
#ifndef PTX_BLOCKS_H
#define PTX_BLOCKS_H

#include "ptx_runtime.h"

enum { MAX_THREADS = 1024, MAX_WARPS = MAX_THREADS / PTX_WARP, BARRIERS = 16 };
enum { STACK = 256 << 10, PAGE = 4096 };

// What executes blocks, one after the other: a thread of the host. `current` is the CUDA thread that runs.
struct worker {
    struct ptx_block     block;
    uint32_t             threads;
    uint8_t *            stacks;  // MAX_THREADS of STACK bytes; below those of a warp is an unreadable page
    uint8_t *            shared;
    uint64_t *           executed;
    uint32_t             executed_space;
    struct ptx_thread *  current;
    struct block_state * state;  // of blocks.c
};

struct block_state * ptx_new_state(void);

// The launch that is executed, and the worker whose thread this is.
extern const struct ptx_launch *     ptx_job;
extern _Thread_local struct worker * ptx_self;

// The first reason why the launch failed.
void ptx_fail(const char * format, ...) __attribute__((format(printf, 1, 2)));
bool ptx_failed(void);

void ptx_run_block(struct worker * worker, uint64_t number);

#endif
