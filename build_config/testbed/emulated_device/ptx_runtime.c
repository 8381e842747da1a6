// Executes translated kernels: a coroutine for each CUDA thread, the blocks of a grid over all cores.
//
// A coroutine has its own control flow, so nothing is masked. It runs until it has to wait for other threads: in an
// operation of the warp or at a barrier. If nobody can run and threads are left, the launch ends with who waits where.
#define _GNU_SOURCE
#include "ptx_runtime.h"

#include "ptx_switch.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { MAX_THREADS = 1024, MAX_WARPS = MAX_THREADS / PTX_WARP, MAX_WORKERS = 64, BARRIERS = 16 };
enum { STACK = 256 << 10, PAGE = 4096, SHARED_SPACE = 256 << 10, POISON = 0xFF };
enum { DEFAULT_LIMIT = 600 };  // seconds of one launch
static const uintptr_t LOWEST_SHARED = (uintptr_t) 1 << 28, END_OF_SHARED = (uintptr_t) 1 << 32;

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

struct worker {
    struct coroutine   coroutines[MAX_THREADS];
    struct warp        warps[MAX_WARPS];
    struct barrier     barriers[BARRIERS];
    struct ptx_block   block;
    struct ptx_context scheduler;
    struct coroutine * current;
    uint32_t           threads, alive;
    uint8_t *          stacks;
    uint8_t *          shared;
    uint64_t *         executed;
    uint32_t           executed_space;
};

static pthread_mutex_t           launching = PTHREAD_MUTEX_INITIALIZER;  // one launch at a time
static pthread_mutex_t           mutex     = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t            begin     = PTHREAD_COND_INITIALIZER;
static pthread_cond_t            end       = PTHREAD_COND_INITIALIZER;
static int                       workers, running;
static unsigned                  round_number;
static const struct ptx_launch * job;
static uint64_t *                total;
static uint64_t                  next_block;
static char                      failure[512];
static _Thread_local struct worker * self;

static void fail(const char * format, ...) {
    pthread_mutex_lock(&mutex);
    if (failure[0] == '\0') {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(failure, sizeof failure, format, arguments);
        va_end(arguments);
    }
    pthread_mutex_unlock(&mutex);
}

static bool failed(void) {
    return __atomic_load_n(&failure[0], __ATOMIC_RELAXED) != '\0';
}

static struct coroutine * of(struct ptx_thread * thread) {
    return (struct coroutine *) thread;
}

static void park(struct coroutine * coroutine, enum state state) {
    coroutine->state = state;
    ptx_switch(&coroutine->context, &coroutine->worker->scheduler);
}

static void ready(struct coroutine * coroutine) {
    coroutine->state = READY;
    coroutine->worker->warps[coroutine->thread.warp].ready |= 1U << coroutine->thread.lane;
}

// ------------------------------------------------------------------------------------------ operations of a warp

// Run the operations for which all lanes are there. `running` is the lane that goes on without being scheduled.
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
    struct warp *      warp      = &coroutine->worker->warps[thread->warp];
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
    struct barrier * barrier = &worker->barriers[id];
    barrier->result          = barrier->sum;
    barrier->met             = barrier->arrived;
    barrier->arrived = barrier->sum = barrier->count = 0;
    for (uint32_t i = 0; i < worker->threads; i++) {
        struct coroutine * coroutine = &worker->coroutines[i];
        if (coroutine != going && coroutine->state == AT_BARRIER && coroutine->barrier == id) {
            ready(coroutine);
        }
    }
}

static bool complete(const struct worker * worker, const struct barrier * barrier) {
    return barrier->arrived != 0 && barrier->arrived >= (barrier->count != 0 ? barrier->count : worker->alive);
}

// Count a thread; whether the barrier is complete with it.
static bool arrive_at(struct ptx_thread * thread, uint32_t id, uint32_t count, bool value) {
    struct worker * worker = of(thread)->worker;
    if (id >= BARRIERS) {
        thread->runtime->trap(thread, "there is no barrier of this number");
    }
    struct barrier * barrier = &worker->barriers[id];
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
    const struct barrier * barrier = &of(thread)->worker->barriers[id];
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
    fail("%s in thread %u,%u,%u of block %u,%u,%u", reason, thread->tid[0], thread->tid[1], thread->tid[2],
         thread->block->ctaid[0], thread->block->ctaid[1], thread->block->ctaid[2]);
    park(of(thread), ENDED);
    abort();  // nobody schedules it again
}

static void pause_thread(struct ptx_thread * thread) {
    struct coroutine * coroutine = of(thread);
    coroutine->worker->warps[thread->warp].paused |= 1U << thread->lane;
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
    struct worker *    worker    = self;
    struct coroutine * coroutine = worker->current;
    job->image->run(&coroutine->thread, job->parameters);
    struct warp * warp = &worker->warps[coroutine->thread.warp];
    warp->alive &= ~(1U << coroutine->thread.lane);
    worker->alive--;
    coroutine->state = ENDED;
    if (warp->waiting != 0) {
        meet(warp, NULL);
    }
    for (uint32_t id = 0; id < BARRIERS; id++) {
        if (worker->barriers[id].count == 0 && complete(worker, &worker->barriers[id])) {
            release(worker, id, NULL);
        }
    }
    park(coroutine, ENDED);
    abort();
}

// ----------------------------------------------------------------------------------------------------- one block

static void start_thread(struct worker * worker, uint32_t number) {
    struct coroutine * coroutine = &worker->coroutines[number];
    struct warp *      warp      = &worker->warps[number / PTX_WARP];
    struct ptx_thread * thread   = &coroutine->thread;
    const uint32_t *   size      = job->block;
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
        const struct coroutine * coroutine = &worker->coroutines[i];
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
    fail("deadlock in block %u,%u,%u: %s%u wait for lanes of their warp, %u of %u have ended", block[0], block[1], block[2],
         text, at_warp, worker->threads - worker->alive, worker->threads);
}

// In every second block the last threads come first: a result that depends on the order, because a barrier is missing, then
// differs between blocks.
static void schedule(struct worker * worker, uint32_t warps, bool backwards) {
    while (worker->alive != 0 && !failed()) {
        bool ran = false;
        for (uint32_t w = 0; w < warps; w++) {
            struct warp * warp = &worker->warps[backwards ? warps - 1 - w : w];
            warp->ready |= warp->paused;
            warp->paused = 0;
            while (warp->ready != 0) {
                const int lane = backwards ? PTX_WARP - 1 - __builtin_clz(warp->ready) : __builtin_ctz(warp->ready);
                warp->ready &= ~(1U << lane);
                worker->current = of(warp->lanes[lane]);
                ptx_switch(&worker->scheduler, &worker->current->context);
                ran = true;
                if (failed()) {
                    return;
                }
            }
        }
        if (!ran && worker->alive != 0) {
            report_deadlock(worker);
        }
    }
}

static void run_block(struct worker * worker, uint64_t number) {
    const struct ptx_launch * launch = job;
    const uint32_t            warps  = (worker->threads + PTX_WARP - 1) / PTX_WARP;
    const size_t              size   = launch->image->static_shared + launch->dynamic_shared;
    worker->block.ctaid[0]           = (uint32_t) (number % launch->grid[0]);
    worker->block.ctaid[1]           = (uint32_t) (number / launch->grid[0] % launch->grid[1]);
    worker->block.ctaid[2]           = (uint32_t) (number / launch->grid[0] / launch->grid[1]);
    memset((void *) worker->block.shared, POISON, size);  // nothing is zero by chance
    memset(worker->barriers, 0, sizeof worker->barriers);
    memset(worker->warps, 0, warps * sizeof *worker->warps);
    worker->alive = worker->threads;
    for (uint32_t i = 0; i < worker->threads; i++) {
        start_thread(worker, i);
    }
    schedule(worker, warps, number % 2 != 0);
    worker->current = NULL;
}

// ------------------------------------------------------------------------------------------------------- workers

// Shared memory has addresses of 32 bits: cvta.to.shared truncates them. Unreadable pages surround it.
static uint8_t * new_shared_space(void) {
    const size_t size = SHARED_SPACE + 2 * PAGE;
    for (uintptr_t at = LOWEST_SHARED; at + size < END_OF_SHARED; at += (uintptr_t) 1 << 20) {
        const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
        void *    space = mmap((void *) at, size, PROT_NONE, flags, -1, 0);
        if (space == (void *) at && mprotect((char *) space + PAGE, SHARED_SPACE, PROT_READ | PROT_WRITE) == 0) {
            return (uint8_t *) space + PAGE;
        }
        if (space != MAP_FAILED) {  // a kernel that ignores the flag
            munmap(space, size);
        }
    }
    return NULL;
}

static struct worker * new_worker(void) {
    struct worker * worker = calloc(1, sizeof *worker);
    const int       flags  = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    worker->stacks         = mmap(NULL, (size_t) STACK * MAX_THREADS, PROT_READ | PROT_WRITE, flags, -1, 0);
    worker->shared         = new_shared_space();
    if (worker->stacks == MAP_FAILED || worker->shared == NULL) {
        fprintf(stderr, "emulated device: there is no memory for the threads of a block\n");
        abort();
    }
    for (int i = 0; i < MAX_THREADS; i++) {
        mprotect(worker->stacks + (size_t) STACK * (size_t) i, PAGE, PROT_NONE);
    }
    return worker;
}

static void prepare(struct worker * worker) {
    const struct ptx_launch * launch = job;
    const uint32_t            blocks = launch->image->basic_blocks;
    if (worker->executed_space < blocks) {
        worker->executed       = realloc(worker->executed, blocks * sizeof *worker->executed);
        worker->executed_space = blocks;
    }
    memset(worker->executed, 0, blocks * sizeof *worker->executed);
    memcpy(worker->block.ntid, launch->block, sizeof launch->block);
    memcpy(worker->block.nctaid, launch->grid, sizeof launch->grid);
    worker->threads              = launch->block[0] * launch->block[1] * launch->block[2];
    worker->block.dynamic_shared = launch->dynamic_shared;
    // The end of the shared memory is the end of a page, up to its alignment: what lies behind it cannot be read.
    const size_t size    = (launch->image->static_shared + launch->dynamic_shared + 127U) / 128 * 128;
    worker->block.shared = (uintptr_t) worker->shared + SHARED_SPACE - size;
}

static void * work(void * argument) {
    self                   = argument;
    struct worker * worker = argument;
    const stack_t   stack  = {.ss_sp = malloc(SIGSTKSZ + 16384), .ss_size = SIGSTKSZ + 16384};
    sigaltstack(&stack, NULL);  // the handler of bad accesses cannot use the stack of a coroutine
    for (unsigned done = 0;; done++) {
        pthread_mutex_lock(&mutex);
        while (round_number == done) {
            pthread_cond_wait(&begin, &mutex);
        }
        pthread_mutex_unlock(&mutex);
        prepare(worker);
        const uint64_t blocks = (uint64_t) job->grid[0] * job->grid[1] * job->grid[2];
        for (uint64_t at; !failed() && (at = __atomic_fetch_add(&next_block, 1, __ATOMIC_RELAXED)) < blocks;) {
            run_block(worker, at);
        }
        pthread_mutex_lock(&mutex);
        for (uint32_t i = 0; i < job->image->basic_blocks; i++) {
            total[i] += worker->executed[i];
        }
        if (--running == 0) {
            pthread_cond_signal(&end);
        }
        pthread_mutex_unlock(&mutex);
    }
    return NULL;
}

// A thread of a kernel touched memory that is not its own: end the process as a GPU ends the context, and say who did.
static void on_bad_access(int number, siginfo_t * information, void * context) {
    (void) context;
    if (self != NULL && self->current != NULL) {
        const struct ptx_thread * thread = &self->current->thread;
        const uint32_t *          block  = thread->block->ctaid;
        char                      text[512];
        const int length = snprintf(text, sizeof text,
                                    "emulated device: %s: an illegal memory access at %p, thread %u,%u,%u of block %u,%u,%u\n",
                                    job->image->name, information->si_addr, thread->tid[0], thread->tid[1], thread->tid[2],
                                    block[0], block[1], block[2]);
        if (write(STDERR_FILENO, text, (size_t) length) < 0) {
            abort();
        }
    }
    signal(number, SIG_DFL);
    raise(number);
}

static void start_workers(void) {
    const char * asked = getenv("PTX_WORKERS");
    cpu_set_t    cores;
    workers = asked != NULL ? atoi(asked) : sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 1;
    workers = workers < 1 ? 1 : workers > MAX_WORKERS ? MAX_WORKERS : workers;
    const struct sigaction action = {.sa_sigaction = on_bad_access, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    for (int i = 0; i < workers; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, work, new_worker()) != 0) {
            abort();
        }
        pthread_detach(thread);
    }
}

// Wait for the workers. A kernel that does not end would never be noticed otherwise.
static void wait_for_workers(void) {
    const char *    asked = getenv("PTX_SECONDS");
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += asked != NULL ? atoi(asked) : DEFAULT_LIMIT;
    pthread_mutex_lock(&mutex);
    while (running != 0) {
        if (pthread_cond_timedwait(&end, &mutex, &until) != 0 && running != 0) {
            fprintf(stderr, "emulated device: %s does not end\n", job->image->name);
            abort();
        }
    }
    pthread_mutex_unlock(&mutex);
}

const char * ptx_execute(const struct ptx_launch * launch, uint64_t * executed) {
    pthread_mutex_lock(&launching);
    if (workers == 0) {
        start_workers();
    }
    pthread_mutex_lock(&mutex);
    job        = launch;
    total      = executed;
    next_block = 0;
    failure[0] = '\0';
    running    = workers;
    round_number++;
    pthread_cond_broadcast(&begin);
    pthread_mutex_unlock(&mutex);
    wait_for_workers();
    const char * reason = failed() ? failure : NULL;
    pthread_mutex_unlock(&launching);
    return reason;
}
