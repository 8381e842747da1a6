// The kernels of the emulated GPU. The first launch of each asks the server of the emulation (server.py) for its translation,
// a shared library; the runtime executes it. What was executed is reported when the process ends.
#define _GNU_SOURCE
#include "ptx_runtime.h"
#include "simulated.h"

#include <driver_types.h>

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { MAX_THREADS = 1024, MAX_THREADS_Z = 64, MAX_GRID_YZ = 65535, MAX_GRID_X = 0x7FFFFFFF };

struct kernel {
    char *                   name;
    int                      code;
    const struct ptx_image * image;  // NULL if there is none
    uint64_t                 launches, blocks;
    double                   seconds;
    uint64_t *               executed;
    struct kernel *          next;
};

// The data of the work: all that a launch needs, so that a graph can do it again.
struct work {
    struct kernel * kernel;
    int             device;
    uint32_t        grid[3], block[3];
    uint32_t        shared;
    _Alignas(16) uint8_t parameters[];  // the alignment of malloc
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static void *          by_key;  // of tsearch
static struct kernel * all;

static int compare(const void * a, const void * b) {
    const struct kernel *x = a, *y = b;
    return x->code != y->code ? x->code - y->code : strcmp(x->name, y->name);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double) time.tv_sec + 1e-9 * (double) time.tv_nsec;
}

// Ask the server. `answer` becomes the path of a library, or a reason; false with a reason.
static bool ask(const char * name, int code, char * answer, size_t size) {
    const char *       path    = getenv("EMULATED_SERVER");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const int          server  = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path != NULL ? path : "");
    if (server < 0 || connect(server, (struct sockaddr *) &address, sizeof address) != 0) {
        snprintf(answer, size, "EMULATED_SERVER: %s", strerror(errno));
        return false;
    }
    dprintf(server, "%d %s\n", code, name);
    size_t length = 0;
    for (ssize_t got; length + 1 < size && (got = read(server, answer + length, size - 1 - length)) > 0;) {
        length += (size_t) got;
    }
    close(server);
    answer[length] = '\0';
    if (strncmp(answer, "library ", 8) != 0) {
        return false;
    }
    memmove(answer, answer + 8, length - 7);
    return true;
}

static const struct ptx_image * load(const char * name, int code) {
    char answer[4096];
    if (!ask(name, code, answer, sizeof answer)) {
        fprintf(stderr, "emulated device: %s: %s\n", name, answer);
        return NULL;
    }
    void *                   library = dlopen(answer, RTLD_NOW | RTLD_LOCAL);
    const struct ptx_image * image   = library != NULL ? dlsym(library, "ptx_image") : NULL;
    if (image == NULL) {
        fprintf(stderr, "emulated device: %s: %s\n", name, dlerror());
    }
    return image;
}

static struct kernel * find(const char * name, int code) {
    struct kernel key = {.name = (char *) (uintptr_t) name, .code = code};
    pthread_mutex_lock(&mutex);
    void * node = tfind(&key, &by_key, compare);
    if (node == NULL) {
        struct kernel * kernel = calloc(1, sizeof *kernel);
        *kernel                = (struct kernel) {.name = strdup(name), .code = code, .next = all};
        kernel->image          = load(name, code);
        kernel->executed       = kernel->image != NULL ? calloc(kernel->image->basic_blocks, sizeof(uint64_t)) : NULL;
        all                    = kernel;
        node                   = tsearch(kernel, &by_key, compare);
    }
    struct kernel * kernel = *(struct kernel **) node;
    pthread_mutex_unlock(&mutex);
    return kernel;
}

static int run(void * data) {
    struct work *           work   = data;
    struct kernel *         kernel = work->kernel;
    const struct ptx_launch launch = {
        .image          = kernel->image,
        .parameters     = work->parameters,
        .grid           = {work->grid[0], work->grid[1], work->grid[2]},
        .block          = {work->block[0], work->block[1], work->block[2]},
        .dynamic_shared = work->shared,
    };
    pthread_mutex_lock(&mutex);
    const double start = now();
    simulated_open(work->device, true);
    const char * reason = ptx_execute(&launch, kernel->executed);
    simulated_open(work->device, false);
    kernel->launches++;
    kernel->blocks += (uint64_t) work->grid[0] * work->grid[1] * work->grid[2];
    kernel->seconds += now() - start;
    if (getenv("EMULATED_TRACE") != NULL) {
        fprintf(stderr, "emulated device: %s grid %u,%u,%u block %u,%u,%u shared %u+%u: %.4f s\n", kernel->name, work->grid[0],
                work->grid[1], work->grid[2], work->block[0], work->block[1], work->block[2], kernel->image->static_shared,
                work->shared, now() - start);
    }
    if (reason != NULL) {
        fprintf(stderr, "emulated device: %s: %s\n", kernel->name, reason);
    }
    pthread_mutex_unlock(&mutex);
    return reason != NULL ? cudaErrorLaunchFailure : cudaSuccess;
}

// Whether a real device would take the launch.
static bool fits(const struct simulated_launch * launch, const struct ptx_image * image) {
    const uint32_t *grid = launch->grid, *block = launch->block;
    for (int i = 0; i < 3; i++) {
        if (grid[i] == 0 || block[i] == 0 || block[i] > MAX_THREADS) {
            return false;
        }
    }
    const uint64_t threads = (uint64_t) block[0] * block[1] * block[2];
    return grid[0] <= MAX_GRID_X && grid[1] <= MAX_GRID_YZ && grid[2] <= MAX_GRID_YZ && block[2] <= MAX_THREADS_Z &&
           threads <= (image->max_threads != 0 ? image->max_threads : MAX_THREADS) &&
           image->static_shared + launch->shared <= launch->allowed_shared;
}

int simulated_prepare(const struct simulated_launch * launch, struct simulated_work * result) {
    struct kernel *          kernel = find(launch->kernel, launch->code);
    const struct ptx_image * image  = kernel->image;
    if (image == NULL) {
        return cudaErrorInvalidDeviceFunction;
    }
    if (launch->cooperative) {
        fprintf(stderr, "emulated device: %s: its blocks wait for one another, which is not emulated\n", kernel->name);
        return cudaErrorNotSupported;
    }
    if (!fits(launch, image)) {
        fprintf(stderr, "emulated device: %s: no device takes a grid of %u,%u,%u, a block of %u,%u,%u and %zu bytes\n",
                kernel->name, launch->grid[0], launch->grid[1], launch->grid[2], launch->block[0], launch->block[1],
                launch->block[2], image->static_shared + launch->shared);
        return cudaErrorInvalidConfiguration;
    }
    const size_t  size = sizeof(struct work) + image->parameter_bytes;
    struct work * work = malloc(size);
    *work              = (struct work) {.kernel = kernel, .device = launch->device, .shared = (uint32_t) launch->shared};
    memcpy(work->grid, launch->grid, sizeof work->grid);
    memcpy(work->block, launch->block, sizeof work->block);
    for (uint32_t i = 0; i < image->parameters; i++) {
        memcpy(work->parameters + image->parameter_offsets[i], launch->arguments[i], image->parameter_sizes[i]);
    }
    *result = (struct simulated_work) {.run = run, .data = work, .size = size};
    return cudaSuccess;
}

// ------------------------------------------------------------------------------------------------------ the report

static void write_kernel(FILE * file, const struct kernel * kernel) {
    const struct ptx_image * image = kernel->image;
    fprintf(file, "\n    {\"name\": \"%s\", \"code\": %d, \"launches\": %llu, \"blocks\": %llu, \"seconds\": %.6f, ", kernel->name,
            kernel->code, (unsigned long long) kernel->launches, (unsigned long long) kernel->blocks, kernel->seconds);
    fprintf(file, "\"executed\": [");
    for (uint32_t i = 0; image != NULL && i < image->basic_blocks; i++) {
        fprintf(file, "%s%llu", i > 0 ? ", " : "", (unsigned long long) kernel->executed[i]);
    }
    fprintf(file, "], \"lines\": [");
    for (uint32_t i = 0; image != NULL && i < image->basic_blocks; i++) {
        fprintf(file, "%s%u", i > 0 ? ", " : "", image->lines[i]);
    }
    fprintf(file, "]}");
}

__attribute__((destructor)) static void report(void) {
    const char * path = getenv("EMULATED_REPORT");
    FILE *       file = path != NULL && all != NULL ? fopen(path, "w") : NULL;
    if (file == NULL) {
        return;
    }
    fprintf(file, "{\n  \"kernels\": [");
    for (const struct kernel * kernel = all; kernel != NULL; kernel = kernel->next) {
        write_kernel(file, kernel);
        fprintf(file, "%s", kernel->next != NULL ? "," : "");
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    fprintf(file, "\n  ],\n  \"memory\": %lld\n}\n", (long long) usage.ru_maxrss << 10);  // it is in kilobytes
    fclose(file);
}
