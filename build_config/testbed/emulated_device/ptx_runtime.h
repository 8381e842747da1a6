// What a translated kernel sees of the machine that runs it: its thread, the meeting of threads, asynchronous copies.
//
// A translated kernel is one C file that includes this header and ptx_instructions.h (arithmetic only) and defines
// `ptx_image`. It is compiled into a shared library that needs no other one: everything of the runtime is called
// through `thread->runtime`.
#ifndef PTX_RUNTIME_H
#define PTX_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PTX_WARP = 32, PTX_OPERANDS = 24, PTX_RESULTS = 8 };

struct ptx_thread;

// An operation of a warp (PTX ISA 9.0, 9.7.9.6: shfl; 9.7.13: vote, match, redux; 9.7.14.5: mma, ldmatrix, movmatrix). It reads `a` and
// `row` and writes `r` of every lane in `mask`. Lanes that are not in the mask are NULL or must not be used.
typedef void ptx_warp_function(struct ptx_thread * lanes[PTX_WARP], uint32_t mask);

struct ptx_block {
    uint32_t  ntid[3];    // %ntid
    uint32_t  ctaid[3];   // %ctaid
    uint32_t  nctaid[3];  // %nctaid
    uintptr_t shared;     // the address of the block's shared memory, below 4 GiB: static variables, then dynamic memory
    uint32_t  dynamic_shared;  // %dynamic_smem_size
};

struct ptx_runtime {
    // Wait until all threads of the warp in `mask` that have not ended called this with the same function and mask. The
    // last of them runs the function.
    void (*warp)(struct ptx_thread * thread, ptx_warp_function * function, uint32_t mask);
    // bar.sync, barrier.sync: wait for `count` threads, with 0 for all of the block that have not ended.
    void (*barrier)(struct ptx_thread * thread, uint32_t id, uint32_t count);
    // bar.arrive, barrier.arrive: count as one of `count` threads and do not wait.
    void (*arrive)(struct ptx_thread * thread, uint32_t id, uint32_t count);
    // bar.red: the number of threads whose `value` was true; `*threads` is the number of those that met.
    uint32_t (*reduce)(struct ptx_thread * thread, uint32_t id, uint32_t count, bool value, uint32_t * threads);
    // cp.async: remember a copy of `size` bytes, of which the source has `source_size` (the others become 0).
    void (*copy)(struct ptx_thread * thread, uint64_t target, uint64_t source, uint32_t size, uint32_t source_size);
    // cp.async.commit_group.
    void (*commit)(struct ptx_thread * thread);
    // cp.async.wait_group: do the copies of all groups except the last `pending` ones. cp.async.wait_all: PTX_ALL.
    void (*wait)(struct ptx_thread * thread, uint32_t pending);
    // trap, and assertions: end the launch with a reason. Does not return.
    void (*trap)(struct ptx_thread * thread, const char * reason);
    // Let the other threads of the block run: for a thread that waits for memory to change (nanosleep).
    void (*pause)(struct ptx_thread * thread);
};

#define PTX_ALL UINT32_MAX

struct ptx_thread {
    const struct ptx_runtime * runtime;
    const struct ptx_block *   block;
    uint64_t *                 executed;  // one counter for each basic block of the kernel: thread->executed[7]++
    uint32_t                   tid[3];    // %tid
    uint32_t                   lane;      // %laneid
    uint32_t                   warp;      // %warpid
    uint32_t                   a[PTX_OPERANDS];
    uint32_t                   r[PTX_RESULTS];
    const void *               row;  // ldmatrix: the row whose address this lane gives
};

// Defined by each translated kernel as `const struct ptx_image ptx_image`.
struct ptx_image {
    const char * name;                                                  // the mangled name, as in the PTX
    void (*run)(struct ptx_thread * thread, const uint8_t * parameters);
    const uint32_t * parameter_offsets;                                 // of each .param, in its layout
    const uint32_t * parameter_sizes;
    uint32_t         parameters;
    uint32_t         parameter_bytes;
    uint32_t         static_shared;  // bytes; dynamic shared memory begins there (a multiple of 128)
    uint32_t         max_threads;    // of .maxntid or .reqntid, 0 without one
    uint32_t         basic_blocks;   // length of ptx_thread.executed; the functions that the kernel calls are in it
    const uint32_t * lines;          // of each basic block: the line in the PTX file where it begins
};

// ------------------------------------------------------------------------------ for the program that launches kernels

struct ptx_launch {
    const struct ptx_image * image;
    const uint8_t *          parameters;
    uint32_t                 grid[3];
    uint32_t                 block[3];
    uint32_t                 dynamic_shared;
};

// Execute a kernel, its blocks over all workers (PTX_WORKERS, by default one for each core). Adds to `executed`, one
// counter for each basic block. Returns NULL, or why the launch failed, which is valid until the next launch.
const char * ptx_execute(const struct ptx_launch * launch, uint64_t * executed);

#endif
