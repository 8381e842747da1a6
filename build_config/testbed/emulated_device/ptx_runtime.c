// Executes translated kernels: the blocks of a grid over all cores (blocks.c), one launch after the other.
#define _GNU_SOURCE
#include "blocks.h"

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

enum { MAX_WORKERS = 64, SHARED_SPACE = 256 << 10, DEFAULT_LIMIT = 600 };  // bytes; seconds of one launch
static const uintptr_t LOWEST_SHARED = (uintptr_t) 1 << 28, END_OF_SHARED = (uintptr_t) 1 << 32;

const struct ptx_launch *     ptx_job;
_Thread_local struct worker * ptx_self;

static pthread_mutex_t           launching = PTHREAD_MUTEX_INITIALIZER;  // one launch at a time
static pthread_mutex_t           mutex     = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t            begin     = PTHREAD_COND_INITIALIZER;
static pthread_cond_t            end       = PTHREAD_COND_INITIALIZER;
static int                       workers, running;
static unsigned                  round_number;
static uint64_t *                total;
static uint64_t                  next_block;
static char                      failure[512];

void ptx_fail(const char * format, ...) {
    pthread_mutex_lock(&mutex);
    if (failure[0] == '\0') {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(failure, sizeof failure, format, arguments);
        va_end(arguments);
    }
    pthread_mutex_unlock(&mutex);
}

bool ptx_failed(void) {
    return __atomic_load_n(&failure[0], __ATOMIC_RELAXED) != '\0';
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
    worker->state          = ptx_new_state();
    if (worker->stacks == MAP_FAILED || worker->shared == NULL) {
        fprintf(stderr, "emulated device: there is no memory for the threads of a block\n");
        abort();
    }
    for (int i = 0; i < MAX_THREADS; i += PTX_WARP) {  // one page for each would be too many mappings for many cores
        mprotect(worker->stacks + (size_t) STACK * (size_t) i, PAGE, PROT_NONE);
    }
    return worker;
}

static void prepare(struct worker * worker) {
    const struct ptx_launch * launch = ptx_job;
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
    ptx_self                   = argument;
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
        const uint64_t blocks = (uint64_t) ptx_job->grid[0] * ptx_job->grid[1] * ptx_job->grid[2];
        for (uint64_t at; !ptx_failed() && (at = __atomic_fetch_add(&next_block, 1, __ATOMIC_RELAXED)) < blocks;) {
            ptx_run_block(worker, at);
        }
        pthread_mutex_lock(&mutex);
        for (uint32_t i = 0; i < ptx_job->image->basic_blocks; i++) {
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
    if (ptx_self != NULL && ptx_self->current != NULL) {
        const struct ptx_thread * thread = ptx_self->current;
        const uint32_t *          block  = thread->block->ctaid;
        char                      text[512];
        const int length = snprintf(text, sizeof text,
                                    "emulated device: %s: an illegal memory access at %p, thread %u,%u,%u of block %u,%u,%u\n",
                                    ptx_job->image->name, information->si_addr, thread->tid[0], thread->tid[1], thread->tid[2],
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
            fprintf(stderr, "emulated device: %s does not end\n", ptx_job->image->name);
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
    ptx_job        = launch;
    total      = executed;
    next_block = 0;
    failure[0] = '\0';
    running    = workers;
    round_number++;
    pthread_cond_broadcast(&begin);
    pthread_mutex_unlock(&mutex);
    wait_for_workers();
    const char * reason = ptx_failed() ? failure : NULL;
    pthread_mutex_unlock(&launching);
    return reason;
}
