// A double of the CUDA runtime on the simulated GPU. Everything except kernels is done here and counted; what a kernel does,
// kernels.c says.
// See README.md.
#define _GNU_SOURCE
#include "address_space.h"
#include "work.h"

#include <cuda_runtime_api.h>
#include <search.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_SHARED = 48 << 10 };  // bytes of shared memory that a block gets without asking

static _Thread_local int         current_device;
static _Thread_local cudaError_t last_error;
static cudaError_t               lost;  // an error from which a real context does not recover

static cudaError_t done(cudaError_t error) {
    if (error != cudaSuccess) {
        last_error = error;
    }
    return error;
}

static cudaError_t refuse(cudaError_t error) {
    simulated_count(REFUSED, 1);
    return done(error);
}

// The status that every call checks first.
static cudaError_t state(void) {
    if (simulated_fault_is("driver-too-old", NULL)) {
        return cudaErrorInsufficientDriver;
    }
    return simulated_start() != 0 ? (cudaError_t) simulated_start() : lost;
}

#define START                           \
    do {                                \
        const cudaError_t s = state();  \
        if (s != cudaSuccess) {         \
            return done(s);             \
        }                               \
    } while (0)

// ------------------------------------------------------------------------------------------------------- errors

cudaError_t cudaGetLastError(void) {
    const cudaError_t error = lost != cudaSuccess ? lost : last_error;
    last_error              = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError(void) {
    return lost != cudaSuccess ? lost : last_error;
}

const char * cudaGetErrorName(cudaError_t error) {
    return error == cudaSuccess ? "cudaSuccess" : "cudaError of the simulated GPU";
}

const char * cudaGetErrorString(cudaError_t error) {
    switch (error) {
        case cudaSuccess:
            return "no error";
        case cudaErrorInvalidValue:
            return "invalid argument";
        case cudaErrorMemoryAllocation:
            return "out of memory";
        case cudaErrorInitializationError:
            return "initialization error";
        case cudaErrorInsufficientDriver:
            return "CUDA driver version is insufficient for CUDA runtime version";
        case cudaErrorNoDevice:
            return "no CUDA-capable device is detected";
        case cudaErrorInvalidDevice:
            return "invalid device ordinal";
        case cudaErrorInvalidDeviceFunction:
            return "invalid device function";
        case cudaErrorNoKernelImageForDevice:
            return "no kernel image is available for execution on the device";
        case cudaErrorLaunchFailure:
            return "unspecified launch failure";
        default:
            return "error of the simulated GPU";
    }
}

// ------------------------------------------------------------------------------------------------------ devices

cudaError_t cudaGetDeviceCount(int * count) {
    *count = 0;
    START;
    *count = simulated_device_count();
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
    START;
    if (simulated_device(device) == NULL) {
        return refuse(cudaErrorInvalidDevice);
    }
    current_device = device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int * device) {
    START;
    *device = current_device;
    return cudaSuccess;
}

cudaError_t cudaSetDeviceFlags(unsigned int flags) {
    (void) flags;
    START;
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void) {
    START;
    return cudaSuccess;
}

cudaError_t cudaDeviceReset(void) {
    START;
    return cudaSuccess;
}

// Shared memory that a block may request, in bytes, by compute capability (CUDA C++ Programming Guide, technical
// specifications per compute capability).
static size_t shared_memory(const struct simulated_device * device) {
    switch (10 * device->major + device->minor) {
        case 75:
            return 64 << 10;
        case 80:
        case 87:
            return 163 << 10;
        case 86:
        case 89:
            return 99 << 10;
        case 90:
        case 100:
        case 103:
            return 227 << 10;
        default:
            return device->major < 7 ? 48 << 10 : 99 << 10;
    }
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp * properties, int id) {
    START;
    const struct simulated_device * device = simulated_device(id);
    if (device == NULL) {
        return refuse(cudaErrorInvalidDevice);
    }
    memset(properties, 0, sizeof *properties);
    snprintf(properties->name, sizeof properties->name, "%s", device->name);
    properties->major                       = device->major;
    properties->minor                       = device->minor;
    properties->totalGlobalMem              = device->memory;
    properties->sharedMemPerBlock           = DEFAULT_SHARED;
    properties->sharedMemPerBlockOptin      = shared_memory(device);
    properties->sharedMemPerMultiprocessor  = shared_memory(device) + (1 << 10);
    properties->regsPerBlock                = 65536;
    properties->warpSize                    = 32;
    properties->maxThreadsPerBlock          = 1024;
    properties->maxThreadsPerMultiProcessor = 1536;
    properties->multiProcessorCount         = 24;
    properties->unifiedAddressing           = 1;
    properties->cooperativeLaunch           = 1;
    properties->pciBusID                    = id + 1;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int * value, enum cudaDeviceAttr attribute, int id) {
    START;
    const struct simulated_device * device = simulated_device(id);
    if (device == NULL) {
        return refuse(cudaErrorInvalidDevice);
    }
    switch (attribute) {
        case cudaDevAttrComputeCapabilityMajor:
            *value = device->major;
            return cudaSuccess;
        case cudaDevAttrComputeCapabilityMinor:
            *value = device->minor;
            return cudaSuccess;
        case cudaDevAttrMultiProcessorCount:
            *value = 24;
            return cudaSuccess;
        case cudaDevAttrCooperativeLaunch:
            *value = 1;
            return cudaSuccess;
        default:  // an error is better than an invented value
            return refuse(cudaErrorInvalidValue);
    }
}

cudaError_t cudaDeviceGetPCIBusId(char * text, int length, int device) {
    START;
    if (simulated_device(device) == NULL) {
        return refuse(cudaErrorInvalidDevice);
    }
    snprintf(text, (size_t) length, "0000:%02x:00.0", (unsigned) device + 1);
    return cudaSuccess;
}

cudaError_t cudaDeviceCanAccessPeer(int * can, int device, int peer) {
    START;
    const struct simulated_device * one   = simulated_device(device);
    const struct simulated_device * other = simulated_device(peer);
    if (one == NULL || other == NULL) {
        return refuse(cudaErrorInvalidDevice);
    }
    *can = one != other && simulated_peers(one, other);
    return cudaSuccess;
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned int flags) {
    (void) flags;
    START;
    int                can   = 0;
    const cudaError_t error = cudaDeviceCanAccessPeer(&can, current_device, peer);
    return error != cudaSuccess || can ? error : refuse(cudaErrorPeerAccessUnsupported);
}

cudaError_t cudaDeviceDisablePeerAccess(int peer) {
    (void) peer;
    START;
    return cudaSuccess;
}

// ------------------------------------------------------------------------------------------------------- memory

static cudaError_t allocate(void ** pointer, size_t size, bool managed) {
    START;
    *pointer = NULL;
    if (size == 0) {
        return cudaSuccess;
    }
    *pointer = simulated_allocate(current_device, size, managed);
    return done(*pointer == NULL ? cudaErrorMemoryAllocation : cudaSuccess);
}

cudaError_t cudaMalloc(void ** pointer, size_t size) {
    return allocate(pointer, size, false);
}

cudaError_t cudaMallocManaged(void ** pointer, size_t size, unsigned int flags) {
    (void) flags;
    return allocate(pointer, size, true);
}

cudaError_t cudaFree(void * pointer) {
    if (pointer == NULL) {
        return cudaSuccess;
    }
    return simulated_free(pointer) ? cudaSuccess : refuse(cudaErrorInvalidValue);
}

cudaError_t cudaMallocHost(void ** pointer, size_t size) {
    START;
    *pointer = allocate_pages(size);
    if (*pointer == NULL) {
        return done(cudaErrorMemoryAllocation);
    }
    simulated_live(PINNED_BLOCKS, 1);
    return cudaSuccess;
}

cudaError_t cudaHostAlloc(void ** pointer, size_t size, unsigned int flags) {
    (void) flags;
    return cudaMallocHost(pointer, size);
}

cudaError_t cudaFreeHost(void * pointer) {
    if (pointer != NULL) {
        free_pages(pointer);
        simulated_live(PINNED_BLOCKS, -1);
    }
    return cudaSuccess;
}

cudaError_t cudaHostRegister(void * pointer, size_t size, unsigned int flags) {
    (void) pointer;
    (void) size;
    (void) flags;
    START;
    simulated_live(PINNED_BLOCKS, 1);
    return cudaSuccess;
}

cudaError_t cudaHostUnregister(void * pointer) {
    (void) pointer;
    simulated_live(PINNED_BLOCKS, -1);
    return cudaSuccess;
}

cudaError_t cudaHostGetDevicePointer(void ** device, void * host, unsigned int flags) {
    (void) flags;
    START;
    *device = host;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t * free_bytes, size_t * total) {
    START;
    simulated_memory(current_device, free_bytes, total);
    return cudaSuccess;
}

#if CUDART_VERSION >= 13000
cudaError_t cudaMemAdvise(const void * pointer, size_t count, enum cudaMemoryAdvise advice, struct cudaMemLocation location) {
#else
cudaError_t cudaMemAdvise(const void * pointer, size_t count, enum cudaMemoryAdvise advice, int location) {
#endif
    (void) pointer;
    (void) count;
    (void) advice;
    (void) location;
    START;
    return cudaSuccess;
}

// Whether the direction that a copy declares matches its pointers.
static bool direction_fits(enum cudaMemcpyKind kind, bool from_device, bool to_device) {
    switch (kind) {
        case cudaMemcpyHostToDevice:
            return to_device && !from_device;
        case cudaMemcpyDeviceToHost:
            return from_device && !to_device;
        case cudaMemcpyDeviceToDevice:
            return from_device && to_device;
        case cudaMemcpyHostToHost:
            return !from_device && !to_device;
        default:
            return true;
    }
}

struct copy {
    void *              target;
    size_t              target_pitch;
    const void *        source;
    size_t              source_pitch;
    size_t              width;
    size_t              height;
    enum cudaMemcpyKind kind;
};

static int do_copy(void * data) {
    const struct copy * copy        = data;
    bool                to_device   = false;
    bool                from_device = false;
    char * to   = simulated_view(copy->target, copy->target_pitch * (copy->height - 1) + copy->width, &to_device);
    char * from = simulated_view(copy->source, copy->source_pitch * (copy->height - 1) + copy->width, &from_device);
    if (to == NULL || from == NULL || !direction_fits(copy->kind, from_device, to_device)) {
        return refuse(cudaErrorInvalidValue);
    }
    for (size_t row = 0; row < copy->height; row++) {
        memmove(to + row * copy->target_pitch, from + row * copy->source_pitch, copy->width);
    }
    simulated_count(to_device ? (from_device ? COPIES_WITHIN_DEVICE : COPIES_TO_DEVICE) :
                                (from_device ? COPIES_FROM_DEVICE : COPIES_WITHIN_HOST),
                    1);
    simulated_count(BYTES_COPIED, copy->width * copy->height);
    return cudaSuccess;
}

static cudaError_t copy_rows(struct copy copy, cudaStream_t stream) {
    START;
    if (copy.width == 0 || copy.height == 0) {
        return cudaSuccess;
    }
    return work_do(stream, work_of(do_copy, &copy, sizeof copy));
}

static cudaError_t copy_bytes(void * target, const void * source, size_t size, enum cudaMemcpyKind kind, cudaStream_t stream) {
    return copy_rows((struct copy) {target, size, source, size, size, 1, kind}, stream);
}

cudaError_t cudaMemcpy(void * target, const void * source, size_t size, enum cudaMemcpyKind kind) {
    return copy_bytes(target, source, size, kind, NULL);
}

cudaError_t cudaMemcpyAsync(void * target, const void * source, size_t size, enum cudaMemcpyKind kind, cudaStream_t stream) {
    return copy_bytes(target, source, size, kind, stream);
}

cudaError_t cudaMemcpy2DAsync(void *              target,
                              size_t              target_pitch,
                              const void *        source,
                              size_t              source_pitch,
                              size_t              width,
                              size_t              height,
                              enum cudaMemcpyKind kind,
                              cudaStream_t        stream) {
    return copy_rows((struct copy) {target, target_pitch, source, source_pitch, width, height, kind}, stream);
}

cudaError_t cudaMemcpyPeerAsync(
    void * target, int target_device, const void * source, int source_device, size_t size, cudaStream_t stream) {
    if (simulated_device_of(target) != target_device || simulated_device_of(source) != source_device) {
        return refuse(cudaErrorInvalidValue);
    }
    return copy_bytes(target, source, size, cudaMemcpyDeviceToDevice, stream);
}

struct fill {
    void * pointer;
    int    value;
    size_t size;
};

static int do_fill(void * data) {
    const struct fill * fill      = data;
    bool                on_device = false;
    void *              view      = simulated_view(fill->pointer, fill->size, &on_device);
    if (view == NULL) {
        return refuse(cudaErrorInvalidValue);
    }
    memset(view, fill->value, fill->size);
    simulated_count(MEMSETS, 1);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void * pointer, int value, size_t size, cudaStream_t stream) {
    START;
    const struct fill fill = {.pointer = pointer, .value = value, .size = size};
    return work_do(stream, work_of(do_fill, &fill, sizeof fill));
}

cudaError_t cudaMemset(void * pointer, int value, size_t size) {
    return cudaMemsetAsync(pointer, value, size, NULL);
}

// ----------------------------------------------------------------------------- streams, events, graphs of launches

// A graph, and what is launched of it: each has its own copy of the work.
struct CUgraph_st {
    struct nodes nodes;
};

static void delete_nodes(struct nodes * nodes) {
    for (struct node * node = nodes->first; node != NULL;) {
        struct node * next = node->next;
        free(node->work.data);
        free(node);
        node = next;
    }
    *nodes = (struct nodes) {0};
}

static void copy_nodes(struct nodes * to, const struct nodes * from) {
    delete_nodes(to);
    for (const struct node * node = from->first; node != NULL; node = node->next) {
        nodes_add(to, work_of(node->work.run, node->work.data, node->work.size));
    }
    to->launches = from->launches;
}

static cudaError_t new_object(void * result, size_t size, enum simulated_object kind) {
    START;
    *(void **) result = calloc(1, size);
    simulated_live(kind, 1);
    return cudaSuccess;
}

static cudaError_t delete_object(void * object, enum simulated_object kind) {
    free(object);
    simulated_live(kind, -1);
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t * stream, unsigned int flags) {
    (void) flags;
    return new_object(stream, sizeof **stream, STREAMS);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    return delete_object(stream, STREAMS);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    (void) stream;
    START;
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned int flags) {
    (void) stream;
    (void) event;
    (void) flags;
    START;
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t * event, unsigned int flags) {
    (void) flags;
    return new_object(event, 1, EVENTS);
}

cudaError_t cudaEventCreate(cudaEvent_t * event) {
    return cudaEventCreateWithFlags(event, 0);
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    return delete_object(event, EVENTS);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    (void) event;
    (void) stream;
    START;
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    (void) event;
    START;
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
    (void) event;
    START;
    return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float * milliseconds, cudaEvent_t start, cudaEvent_t end) {
    (void) start;
    (void) end;
    START;
    *milliseconds = 0.0F;
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
    (void) mode;
    START;
    if (stream == NULL || stream->recording) {
        return refuse(cudaErrorInvalidValue);
    }
    stream->recording = true;
    delete_nodes(&stream->recorded);
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t * graph) {
    START;
    if (stream == NULL || !stream->recording) {
        return refuse(cudaErrorInvalidValue);
    }
    stream->recording       = false;
    const cudaError_t error = new_object(graph, sizeof **graph, GRAPHS);
    if (error == cudaSuccess) {
        (*graph)->nodes  = stream->recorded;
        stream->recorded = (struct nodes) {0};
    }
    return error;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus * status) {
    START;
    *status = is_recording(stream) ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete_nodes(&graph->nodes);
    return delete_object(graph, GRAPHS);
}

static cudaError_t instantiate(cudaGraphExec_t * executable, cudaGraph_t graph) {
    const cudaError_t error = new_object(executable, sizeof *graph, GRAPHS);
    if (error == cudaSuccess) {
        copy_nodes(&((struct CUgraph_st *) *executable)->nodes, &graph->nodes);
    }
    return error;
}

#if CUDART_VERSION >= 12000
cudaError_t cudaGraphInstantiate(cudaGraphExec_t * executable, cudaGraph_t graph, unsigned long long flags) {
    (void) flags;
    return instantiate(executable, graph);
}

cudaError_t cudaGraphExecUpdate(cudaGraphExec_t executable, cudaGraph_t graph, cudaGraphExecUpdateResultInfo * result) {
    START;
    result->result = cudaGraphExecUpdateSuccess;
    copy_nodes(&((struct CUgraph_st *) executable)->nodes, &graph->nodes);
    return cudaSuccess;
}
#else
cudaError_t cudaGraphInstantiate(
    cudaGraphExec_t * executable, cudaGraph_t graph, cudaGraphNode_t * node, char * log, size_t size) {
    (void) node;
    (void) log;
    (void) size;
    return instantiate(executable, graph);
}

cudaError_t cudaGraphExecUpdate(
    cudaGraphExec_t executable, cudaGraph_t graph, cudaGraphNode_t * node, enum cudaGraphExecUpdateResult * result) {
    (void) node;
    START;
    *result = cudaGraphExecUpdateSuccess;
    copy_nodes(&((struct CUgraph_st *) executable)->nodes, &graph->nodes);
    return cudaSuccess;
}
#endif

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
    delete_nodes(&((struct CUgraph_st *) executable)->nodes);
    return delete_object(executable, GRAPHS);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
    (void) stream;
    START;
    const struct nodes * nodes = &((struct CUgraph_st *) executable)->nodes;
    simulated_count(GRAPH_LAUNCHES, 1);
    simulated_count(LAUNCHES, nodes->launches);
    for (const struct node * node = nodes->first; node != NULL && lost == cudaSuccess; node = node->next) {
        lost = node->work.run(node->work.data);
    }
    return lost;
}

// ------------------------------------------------------------------------------------------------- device code

// A fat binary as nvcc embeds it: a header, then entries, each with its own header. Payloads may be compressed,
// headers are not.
struct fat_header {
    uint32_t magic;
    uint16_t version;
    uint16_t header_size;
    uint64_t size;  // of all entries
};

struct fat_entry {
    uint16_t kind;
    uint16_t version;
    uint32_t header_size;
    uint64_t size;  // of the payload
    uint32_t compressed_size;
    uint32_t unknown;
    uint16_t minor;
    uint16_t major;
    uint32_t arch;  // ten times major plus minor of the compute capability
};

enum { FAT_MAGIC = 0xBA55ED50, FAT_PTX = 1, FAT_CUBIN = 2 };

struct module {
    const char * code;
};

// A kernel's stub in the host program, its mangled name, and the module with which it was registered.
struct kernel {
    const void *          stub;
    const char *          name;
    const struct module * module;
    size_t                allowed_shared;  // dynamic shared memory, in bytes
};

static void * kernels;  // of tsearch

static int by_stub(const void * a, const void * b) {
    const uintptr_t x = (uintptr_t) ((const struct kernel *) a)->stub;
    const uintptr_t y = (uintptr_t) ((const struct kernel *) b)->stub;
    return (x > y) - (x < y);
}

static bool entry_runs(const struct fat_entry * entry, int gpu) {
    const int arch = (int) entry->arch;
    return arch <= gpu && (entry->kind == FAT_PTX || (entry->kind == FAT_CUBIN && arch / 10 == gpu / 10));
}

// The architecture of the code in a module that a device takes, read from the code itself: 89. 0 if it has none.
static int code_for(const struct module * module, const struct simulated_device * device) {
    struct fat_header header;
    int               best = 0;
    memcpy(&header, module->code, sizeof header);
    if (header.magic != FAT_MAGIC) {
        return 0;
    }
    const char * position = module->code + header.header_size;
    const char * end      = position + header.size;
    while (position < end) {
        struct fat_entry entry;
        memcpy(&entry, position, sizeof entry);
        if (entry_runs(&entry, 10 * device->major + device->minor) && (int) entry.arch > best) {
            best = (int) entry.arch;
        }
        if (entry.header_size == 0) {
            break;
        }
        position += entry.header_size + entry.size;
    }
    return best;
}

static struct kernel * find_kernel(const void * stub) {
    const struct kernel key  = {.stub = stub};
    void *              node = tfind(&key, &kernels, by_stub);
    return node != NULL ? *(struct kernel **) node : NULL;
}

static cudaError_t check_kernel(const void * stub) {
    const struct kernel * kernel = find_kernel(stub);
    if (kernel == NULL) {
        return cudaErrorInvalidDeviceFunction;
    }
    return code_for(kernel->module, simulated_device(current_device)) ? cudaSuccess : cudaErrorNoKernelImageForDevice;
}

static cudaError_t launch(
    const void * stub, dim3 grid, dim3 block, void ** arguments, size_t shared, cudaStream_t stream, bool cooperative) {
    START;
    cudaError_t error = check_kernel(stub);
    if (error != cudaSuccess) {
        return refuse(error);
    }
    const struct kernel *         kernel = find_kernel(stub);
    const struct simulated_launch launch = {
        .kernel         = kernel->name,
        .code           = code_for(kernel->module, simulated_device(current_device)),
        .device         = current_device,
        .grid           = {grid.x, grid.y, grid.z},
        .block          = {block.x, block.y, block.z},
        .shared         = shared,
        .allowed_shared = kernel->allowed_shared,
        .cooperative    = cooperative,
        .arguments      = arguments,
    };
    size_t after = 0;
    if (simulated_fault_is("launch-failure", &after)) {  // the next call reports it, as on a real GPU
        lost = cudaErrorLaunchFailure;
    }
    if (is_recording(stream)) {
        stream->recorded.launches++;
    } else {
        simulated_count(LAUNCHES, 1);
    }
    struct simulated_work work = {0};
    error                      = simulated_prepare(&launch, &work);
    if (error != cudaSuccess) {
        return refuse(error);
    }
    error = work_do(stream, work);
    return error == cudaSuccess ? error : done(lost = error);
}

cudaError_t cudaLaunchKernel(const void * stub, dim3 grid, dim3 block, void ** arguments, size_t shared, cudaStream_t stream) {
    return launch(stub, grid, block, arguments, shared, stream, false);
}

cudaError_t cudaLaunchCooperativeKernel(
    const void * stub, dim3 grid, dim3 block, void ** arguments, size_t shared, cudaStream_t stream) {
    return launch(stub, grid, block, arguments, shared, stream, true);
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t * configuration, const void * stub, void ** arguments) {
    return launch(stub, configuration->gridDim, configuration->blockDim, arguments, configuration->dynamicSmemBytes,
                  configuration->stream, false);
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void * data) {
    (void) stream;
    START;
    function(data);
    return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void * stub, enum cudaFuncAttribute attribute, int value) {
    START;
    const struct simulated_device * device = simulated_device(current_device);
    const cudaError_t               error  = check_kernel(stub);
    if (error != cudaSuccess) {
        return refuse(error);
    }
    if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize && (size_t) value > shared_memory(device)) {
        return refuse(cudaErrorInvalidValue);
    }
    if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) {
        find_kernel(stub)->allowed_shared = (size_t) value;
    }
    return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes * attributes, const void * stub) {
    START;
    const cudaError_t error = check_kernel(stub);
    if (error != cudaSuccess) {
        return refuse(error);
    }
    memset(attributes, 0, sizeof *attributes);
    attributes->maxThreadsPerBlock        = 1024;
    attributes->numRegs                   = 32;
    attributes->maxDynamicSharedSizeBytes = DEFAULT_SHARED;
    return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    int * blocks, const void * stub, int block_size, size_t shared, unsigned int flags) {
    (void) block_size;
    (void) shared;
    (void) flags;
    START;
    const cudaError_t error = check_kernel(stub);
    if (error != cudaSuccess) {
        return refuse(error);
    }
    *blocks = 1;
    return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int * blocks, const void * stub, int block_size, size_t shared) {
    return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, stub, block_size, shared, 0);
}

// ------------------------------------------------------------------ called by nvcc's own code (crt/host_runtime.h)

struct call {
    dim3   grid;
    dim3   block;
    size_t shared;
    void * stream;
};

static _Thread_local struct call pushed;

void **     __cudaRegisterFatBinary(void * wrapper);
void        __cudaRegisterFatBinaryEnd(void ** handle);
void        __cudaUnregisterFatBinary(void ** handle);
void        __cudaRegisterFunction(void ** handle, const char * stub, char * device_stub, const char * name, int limit,
                                   void * thread, void * block_id, void * block_size, void * grid_size, int * warp_size);
void        __cudaRegisterVar(void ** handle, char * host, char * device, const char * name, int external, size_t size,
                              int constant, int global);
char        __cudaInitModule(void ** handle);
unsigned    __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void * stream);
cudaError_t __cudaPopCallConfiguration(dim3 * grid, dim3 * block, size_t * shared, void * stream);

// What compiled code passes for each module. NVIDIA's header for it belongs to nvcc, which is not there if nothing compiles.
struct fatbin_wrapper {
    int          magic;
    int          version;
    const void * data;
    void *       others;
};

void ** __cudaRegisterFatBinary(void * wrapper) {
    struct module * module = malloc(sizeof *module);
    module->code           = (const char *) ((const struct fatbin_wrapper *) wrapper)->data;
    return (void **) module;
}

void __cudaRegisterFatBinaryEnd(void ** handle) {
    (void) handle;
}

// The module is kept: registered kernels still point to it, and the process is about to end.
void __cudaUnregisterFatBinary(void ** handle) {
    (void) handle;
}

void __cudaRegisterFunction(void ** handle, const char * stub, char * device_stub, const char * name, int limit,
                            void * thread, void * block_id, void * block_size, void * grid_size, int * warp_size) {
    (void) device_stub;
    (void) limit;
    (void) thread;
    (void) block_id;
    (void) block_size;
    (void) grid_size;
    (void) warp_size;
    struct kernel * kernel = malloc(sizeof *kernel);
    *kernel = (struct kernel) {
        .stub = stub, .name = name, .module = (const struct module *) handle, .allowed_shared = DEFAULT_SHARED};
    if (*(struct kernel **) tsearch(kernel, &kernels, by_stub) != kernel) {
        free(kernel);
    }
}

void __cudaRegisterVar(void ** handle, char * host, char * device, const char * name, int external, size_t size,
                       int constant, int global) {
    (void) handle;
    (void) host;
    (void) device;
    (void) name;
    (void) external;
    (void) size;
    (void) constant;
    (void) global;
}

char __cudaInitModule(void ** handle) {
    (void) handle;
    return 1;
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void * stream) {
    pushed = (struct call) {.grid = grid, .block = block, .shared = shared, .stream = stream};
    return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3 * grid, dim3 * block, size_t * shared, void * stream) {
    *grid             = pushed.grid;
    *block            = pushed.block;
    *shared           = pushed.shared;
    *(void **) stream = pushed.stream;
    return cudaSuccess;
}

#if CUDART_VERSION >= 13000
cudaError_t __cudaGetKernel(cudaKernel_t * kernel, const void * stub);
cudaError_t __cudaLaunchKernel(
    cudaKernel_t kernel, dim3 grid, dim3 block, void ** arguments, size_t shared, cudaStream_t stream);

cudaError_t __cudaGetKernel(cudaKernel_t * kernel, const void * stub) {
    *kernel = (cudaKernel_t) (uintptr_t) stub;
    return cudaSuccess;
}

cudaError_t __cudaLaunchKernel(
    cudaKernel_t kernel, dim3 grid, dim3 block, void ** arguments, size_t shared, cudaStream_t stream) {
    return cudaLaunchKernel((const void *) kernel, grid, block, arguments, shared, stream);
}
#endif
