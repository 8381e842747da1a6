// Executes one block: a coroutine for each thread runs until it has to wait for other threads, in an operation of the warp
// or at a barrier. If nobody can run and threads are left, the launch ends with who waits where.
#define _GNU_SOURCE
#include "blocks.h"

#include "ptx_switch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { POISON = 0xFF };

enum state { READY, PAUSED, AT_WARP, AT_BARRIER, ENDED };

struct copy {
    uint64_t target;
    uint64_t source;
    uint32_t size;
    uint32_t source_size;
    uint32_t group;
};

struct coroutine {
    struct ptx_thread   thread;  // first: translated code has a pointer to it
    struct ptx_context  context;
    struct worker *     worker;
    enum state          state;
    ptx_warp_function * function;
    uint32_t            mask;
    uint32_t            barrier;
    uint32_t            copies, copy_space, groups;
    struct copy *       copy;
};

struct warp {
    struct ptx_thread * lanes[PTX_WARP];
    uint32_t            alive, ready, paused, waiting;  // masks of lanes
};

struct barrier {
    uint32_t arrived, count, threads, sum, met, result;
};

struct block_state {
    struct coroutine   coroutines[MAX_THREADS];
    struct warp        warps[MAX_WARPS];
    struct barrier     barriers[BARRIERS];
    struct ptx_context scheduler;
    uint32_t           alive;
};

struct block_state * ptx_new_state(void) {
    return calloc(1, sizeof(struct block_state));
}

static struct coroutine * of(struct ptx_thread * thread) {
    return (struct coroutine *) thread;
}

static void park(struct coroutine * coroutine, enum state state) {
    coroutine->state = state;
    ptx_switch(&coroutine->context, &coroutine->worker->state->scheduler);
}

static void ready(struct coroutine * coroutine) {
    coroutine->state = READY;
    coroutine->worker->state->warps[coroutine->thread.warp].ready |= 1U << coroutine->thread.lane;
}

// ------------------------------------------------------------------------------------------ operations of a warp

// Run the operations for which all lanes are there. `going` is the lane that goes on without being scheduled.
static void meet(struct warp * warp, struct coroutine * going) {
    for (uint32_t rest = warp->waiting; rest != 0;) {
        const struct coroutine * one  = of(warp->lanes[__builtin_ctz(rest)]);
        const uint32_t           need = one->mask & warp->alive;
        rest &= rest - 1;
        bool all = (need & ~warp->waiting) == 0;
        for (uint32_t m = need; all && m != 0; m &= m - 1) {
            const struct coroutine * other = of(warp->lanes[__builtin_ctz(m)]);
            all                            = other->mask == one->mask && other->function == one->function;
        }
        if (!all) {
            continue;
        }
        if (one->function != NULL) {
            one->function(warp->lanes, need);
        }
        warp->waiting &= ~need;
        rest &= ~need;
        for (uint32_t m = need; m != 0; m &= m - 1) {
            struct coroutine * lane = of(warp->lanes[__builtin_ctz(m)]);
            if (lane == going) {
                lane->state = READY;
            } else {
                ready(lane);
            }
        }
    }
}

static void warp_operation(struct ptx_thread * thread, ptx_warp_function * function, uint32_t mask) {
    struct coroutine * coroutine = of(thread);
    struct warp *      warp      = &coroutine->worker->state->warps[thread->warp];
    coroutine->function          = function;
    coroutine->mask              = mask;
    coroutine->state             = AT_WARP;
    warp->waiting |= 1U << thread->lane;
    if ((mask >> thread->lane & 1) == 0) {
        thread->runtime->trap(thread, "a thread takes part in an operation of the warp whose mask lacks it");
    }
    if ((mask & warp->alive & ~warp->waiting) == 0) {
        meet(warp, coroutine);
    }
    if (coroutine->state != READY) {
        park(coroutine, AT_WARP);
    }
}

// ------------------------------------------------------------------------------------------------------ barriers

static void release(struct worker * worker, uint32_t id, const struct coroutine * going) {
    struct barrier * barrier = &worker->state->barriers[id];
    barrier->result          = barrier->sum;
    barrier->met             = barrier->arrived;
    barrier->arrived = barrier->sum = barrier->count = 0;
    for (uint32_t i = 0; i < worker->threads; i++) {
        struct coroutine * coroutine = &worker->state->coroutines[i];
        if (coroutine != going && coroutine->state == AT_BARRIER && coroutine->barrier == id) {
            ready(coroutine);
        }
    }
}

static bool complete(const struct worker * worker, const struct barrier * barrier) {
    return barrier->arrived != 0 && barrier->arrived >= (barrier->count != 0 ? barrier->count : worker->state->alive);
}

// Count a thread; whether the barrier is complete with it.
static bool arrive_at(struct ptx_thread * thread, uint32_t id, uint32_t count, bool value) {
    struct worker * worker = of(thread)->worker;
    if (id >= BARRIERS) {
        thread->runtime->trap(thread, "there is no barrier of this number");
    }
    struct barrier * barrier = &worker->state->barriers[id];
    if (barrier->arrived != 0 && barrier->count != count) {
        thread->runtime->trap(thread, "threads at one barrier expect different numbers of threads");
    }
    barrier->count = count;
    barrier->arrived++;
    barrier->sum += value;
    return complete(worker, barrier);
}

static void wait_at(struct ptx_thread * thread, uint32_t id, uint32_t count, bool value) {
    struct coroutine * coroutine = of(thread);
    if (arrive_at(thread, id, count, value)) {
        release(coroutine->worker, id, coroutine);
    } else {
        coroutine->barrier = id;
        park(coroutine, AT_BARRIER);
    }
}

static void barrier_wait(struct ptx_thread * thread, uint32_t id, uint32_t count) {
    wait_at(thread, id, count, false);
}

static void barrier_arrive(struct ptx_thread * thread, uint32_t id, uint32_t count) {
    if (arrive_at(thread, id, count, false)) {
        release(of(thread)->worker, id, NULL);
    }
}

static uint32_t barrier_reduce(struct ptx_thread * thread, uint32_t id, uint32_t count, bool value, uint32_t * threads) {
    wait_at(thread, id, count, value);
    const struct barrier * barrier = &of(thread)->worker->state->barriers[id];
    *threads                       = barrier->met;
    return barrier->result;
}

// ------------------------------------------------------------------------------------------- asynchronous copies

static void copy_later(struct ptx_thread * thread, uint64_t target, uint64_t source, uint32_t size, uint32_t source_size) {
    struct coroutine * coroutine = of(thread);
    if (coroutine->copies == coroutine->copy_space) {
        coroutine->copy_space = coroutine->copy_space != 0 ? 2 * coroutine->copy_space : 32;
        coroutine->copy       = realloc(coroutine->copy, coroutine->copy_space * sizeof *coroutine->copy);
    }
    coroutine->copy[coroutine->copies++] = (struct copy) {
        .target = target, .source = source, .size = size, .source_size = source_size, .group = coroutine->groups};
}

static void copy_commit(struct ptx_thread * thread) {
    of(thread)->groups++;
}

static void copy_wait(struct ptx_thread * thread, uint32_t pending) {
    struct coroutine * coroutine = of(thread);
    uint32_t           kept      = 0;
    for (uint32_t i = 0; i < coroutine->copies; i++) {
        const struct copy copy = coroutine->copy[i];
        if (pending == PTX_ALL || copy.group + pending < coroutine->groups) {
            const uint32_t size = copy.source_size < copy.size ? copy.source_size : copy.size;
            memcpy((void *) (uintptr_t) copy.target, (const void *) (uintptr_t) copy.source, size);
            memset((char *) (uintptr_t) copy.target + size, 0, copy.size - size);
        } else {
            coroutine->copy[kept++] = copy;
        }
    }
    coroutine->copies = kept;
}

// -------------------------------------------------------------------------------------------- the end of a thread

static void trap(struct ptx_thread * thread, const char * reason) {
    ptx_fail("%s in thread %u,%u,%u of block %u,%u,%u", reason, thread->tid[0], thread->tid[1], thread->tid[2],
         thread->block->ctaid[0], thread->block->ctaid[1], thread->block->ctaid[2]);
    park(of(thread), ENDED);
    abort();  // nobody schedules it again
}

static void pause_thread(struct ptx_thread * thread) {
    struct coroutine * coroutine = of(thread);
    coroutine->worker->state->warps[thread->warp].paused |= 1U << thread->lane;
    park(coroutine, PAUSED);
}

static const struct ptx_runtime RUNTIME = {
    .warp    = warp_operation,
    .barrier = barrier_wait,
    .arrive  = barrier_arrive,
    .reduce  = barrier_reduce,
    .copy    = copy_later,
    .commit  = copy_commit,
    .wait    = copy_wait,
    .trap    = trap,
    .pause   = pause_thread,
};

static void run_thread(void) {
    struct worker *    worker    = ptx_self;
    struct coroutine * coroutine = of(worker->current);
    ptx_job->image->run(&coroutine->thread, ptx_job->parameters);
    struct warp * warp = &worker->state->warps[coroutine->thread.warp];
    warp->alive &= ~(1U << coroutine->thread.lane);
    worker->state->alive--;
    coroutine->state = ENDED;
    if (warp->waiting != 0) {
        meet(warp, NULL);
    }
    for (uint32_t id = 0; id < BARRIERS; id++) {
        if (worker->state->barriers[id].count == 0 && complete(worker, &worker->state->barriers[id])) {
            release(worker, id, NULL);
        }
    }
    park(coroutine, ENDED);
    abort();
}

// ----------------------------------------------------------------------------------------------------- one block

static void start_thread(struct worker * worker, uint32_t number) {
    struct coroutine * coroutine = &worker->state->coroutines[number];
    struct warp *      warp      = &worker->state->warps[number / PTX_WARP];
    struct ptx_thread * thread   = &coroutine->thread;
    const uint32_t *   size      = ptx_job->block;
    thread->runtime              = &RUNTIME;
    thread->block                = &worker->block;
    thread->executed             = worker->executed;
    thread->tid[0]               = number % size[0];
    thread->tid[1]               = number / size[0] % size[1];
    thread->tid[2]               = number / size[0] / size[1];
    thread->lane                 = number % PTX_WARP;
    thread->warp                 = number / PTX_WARP;
    coroutine->worker            = worker;
    coroutine->copies = coroutine->groups = 0;
    warp->lanes[thread->lane]             = thread;
    warp->alive |= 1U << thread->lane;
    ready(coroutine);
    // Not all stacks begin in the same set of the cache.
    uint8_t * const top = worker->stacks + (size_t) STACK * (number + 1) - 64 * (number % 61);
    ptx_prepare(&coroutine->context, worker->stacks + (size_t) STACK * number + PAGE, top, run_thread);
}

static void report_deadlock(const struct worker * worker) {
    uint32_t at_warp = 0, at_barrier[BARRIERS] = {0};
    for (uint32_t i = 0; i < worker->threads; i++) {
        const struct coroutine * coroutine = &worker->state->coroutines[i];
        at_warp += coroutine->state == AT_WARP;
        at_barrier[coroutine->barrier % BARRIERS] += coroutine->state == AT_BARRIER;
    }
    char   text[256] = "";
    size_t length    = 0;
    for (uint32_t id = 0; id < BARRIERS; id++) {
        if (at_barrier[id] != 0 && length < sizeof text) {
            length += (size_t) snprintf(text + length, sizeof text - length, "%u threads wait at barrier %u, ", at_barrier[id], id);
        }
    }
    const uint32_t * block = worker->block.ctaid;
    ptx_fail("deadlock in block %u,%u,%u: %s%u wait for lanes of their warp, %u of %u have ended", block[0], block[1], block[2],
         text, at_warp, worker->threads - worker->state->alive, worker->threads);
}

// In every second block the last threads come first: a result that depends on the order, because a barrier is missing, then
// differs between blocks.
static void schedule(struct worker * worker, uint32_t warps, bool backwards) {
    while (worker->state->alive != 0 && !ptx_failed()) {
        bool ran = false;
        for (uint32_t w = 0; w < warps; w++) {
            struct warp * warp = &worker->state->warps[backwards ? warps - 1 - w : w];
            warp->ready |= warp->paused;
            warp->paused = 0;
            while (warp->ready != 0) {
                const int lane = backwards ? PTX_WARP - 1 - __builtin_clz(warp->ready) : __builtin_ctz(warp->ready);
                warp->ready &= ~(1U << lane);
                worker->current = warp->lanes[lane];
                ptx_switch(&worker->state->scheduler, &of(warp->lanes[lane])->context);
                ran = true;
                if (ptx_failed()) {
                    return;
                }
            }
        }
        if (!ran && worker->state->alive != 0) {
            report_deadlock(worker);
        }
    }
}

void ptx_run_block(struct worker * worker, uint64_t number) {
    const struct ptx_launch * launch = ptx_job;
    const uint32_t            warps  = (worker->threads + PTX_WARP - 1) / PTX_WARP;
    const size_t              size   = launch->image->static_shared + launch->dynamic_shared;
    worker->block.ctaid[0]           = (uint32_t) (number % launch->grid[0]);
    worker->block.ctaid[1]           = (uint32_t) (number / launch->grid[0] % launch->grid[1]);
    worker->block.ctaid[2]           = (uint32_t) (number / launch->grid[0] / launch->grid[1]);
    memset((void *) worker->block.shared, POISON, size);  // nothing is zero by chance
    memset(worker->state->barriers, 0, sizeof worker->state->barriers);
    memset(worker->state->warps, 0, warps * sizeof *worker->state->warps);
    worker->state->alive = worker->threads;
    for (uint32_t i = 0; i < worker->threads; i++) {
        start_thread(worker, i);
    }
    schedule(worker, warps, number % 2 != 0);
    worker->current = NULL;
}
