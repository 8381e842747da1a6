// A double of the NVIDIA driver's library, and the state of the simulated GPU. See README.md.
#define _GNU_SOURCE
#include "address_space.h"
#include "memory.h"

#include <cuda.h>

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_DEVICES = 16 };
static const size_t DEFAULT_MEMORY = (size_t) 8 << 30;
static const size_t GRANULARITY    = (size_t) 2 << 20;

// One block of device memory. A program gets `device_address`; the content is at `bytes`.
struct block {
    uintptr_t     device_address;
    size_t        size;
    char *        bytes;
    int           device;
    bool          managed;
    struct handle * handle;  // the memory behind a mapping, NULL for a plain allocation
};

// Memory of cuMemCreate. It exists until it is released and no longer mapped.
struct handle {
    size_t size;
    int    device;
    int    references;
};

static pthread_mutex_t         mutex = PTHREAD_MUTEX_INITIALIZER;
static struct simulated_device devices[MAX_DEVICES];
static int                     device_count;
static size_t                  used[MAX_DEVICES];
static size_t                  peak[MAX_DEVICES];
static size_t                  allocated_in_all;
static struct block *          blocks;
static size_t                  block_count;
static size_t                  block_space;
static size_t                  counters[COUNTERS];
static long                    live[OBJECTS];
static pid_t                   user;  // the process that started the driver: its children cannot use it, nor do they report

static const char * const COUNTER_NAMES[COUNTERS] = {
    "allocations",        "copies_to_device", "copies_from_device", "copies_within_device", "copies_within_host",
    "bytes_copied",       "memsets",          "launches",           "graph_launches",       "cublas_calls",
    "refused",
};
static const char * const OBJECT_NAMES[OBJECTS] = {
    "streams", "events", "graphs", "pinned_blocks", "cublas_handles", "memory_handles", "reservations",
};

// ------------------------------------------------------------------------------------------------ configuration

static void add_device(const char * capability, size_t memory) {
    int major = 0;
    int minor = 0;
    if (device_count == MAX_DEVICES || sscanf(capability, "%d.%d", &major, &minor) != 2) {
        fprintf(stderr, "simulated device: SIMULATED_DEVICES: '%s' is not a compute capability\n", capability);
        abort();
    }
    struct simulated_device * device = &devices[device_count++];
    *device = (struct simulated_device) {.major = major, .minor = minor, .memory = memory};
    snprintf(device->name, sizeof device->name, "SIMULATED device %d.%d (not a GPU)", major, minor);
    snprintf(device->uuid, sizeof device->uuid, "GPU-%08x-51ed-51ed-51ed-51edde71ce00", (unsigned) device_count);
}

// The device that an entry of CUDA_VISIBLE_DEVICES names, and the end of the entry: an index, or a UUID whose beginning is
// enough. -1 for an unknown one.
static int named_device(const char * entry, const char ** end) {
    *end = entry + strcspn(entry, ",");
    if (strncmp(entry, "GPU-", 4) == 0) {
        for (int i = 0; i < device_count; i++) {
            if (strncmp(entry, devices[i].uuid, (size_t) (*end - entry)) == 0) {
                return i;
            }
        }
        return -1;
    }
    char *     number = NULL;
    const long index  = strtol(entry, &number, 10);
    return number == *end && number != entry && index >= 0 && index < device_count ? (int) index : -1;
}

// Apply CUDA_VISIBLE_DEVICES as the driver does: the devices in this order, up to the first unknown one.
static void hide_devices(void) {
    const char * visible = getenv("CUDA_VISIBLE_DEVICES");
    if (visible == NULL) {
        return;
    }
    struct simulated_device chosen[MAX_DEVICES];
    int                     count = 0;
    while (*visible != '\0' && count < MAX_DEVICES) {
        const char * end   = NULL;
        const int    index = named_device(visible, &end);
        if (index < 0) {
            break;
        }
        chosen[count++] = devices[index];
        visible         = *end == ',' ? end + 1 : end;
    }
    memcpy(devices, chosen, sizeof *devices * (size_t) count);
    device_count = count;
}

__attribute__((constructor)) static void configure(void) {
    const char * memory = getenv("SIMULATED_MEMORY");
    const size_t bytes  = memory != NULL ? strtoull(memory, NULL, 10) : DEFAULT_MEMORY;
    char *       list   = strdup(getenv("SIMULATED_DEVICES") != NULL ? getenv("SIMULATED_DEVICES") : "");
    for (char * entry = strtok(list, ","); entry != NULL; entry = strtok(NULL, ",")) {
        add_device(entry, bytes);
    }
    free(list);
    hide_devices();
    if (simulated_fault_is("no-device", NULL)) {
        device_count = 0;
    }
}

bool simulated_fault_is(const char * name, size_t * argument) {
    const char * fault  = getenv("SIMULATED_FAULT");
    const size_t length = strlen(name);
    if (fault == NULL || strncmp(fault, name, length) != 0 || (fault[length] != '\0' && fault[length] != ':')) {
        return false;
    }
    if (argument != NULL) {
        *argument = fault[length] == ':' ? strtoull(fault + length + 1, NULL, 10) : 0;
    }
    return true;
}

int simulated_start(void) {
    if (user != 0 && user != getpid()) {
        return CUDA_ERROR_NOT_INITIALIZED;
    }
    user = getpid();
    if (simulated_fault_is("no-driver", NULL)) {
        return CUDA_ERROR_UNKNOWN;
    }
    return device_count == 0 ? CUDA_ERROR_NO_DEVICE : CUDA_SUCCESS;
}

int simulated_device_count(void) {
    return device_count;
}

const struct simulated_device * simulated_device(int index) {
    return index >= 0 && index < device_count ? &devices[index] : NULL;
}

bool simulated_peers(const struct simulated_device * one, const struct simulated_device * other) {
    return one->major == other->major && one->minor == other->minor;
}

// ------------------------------------------------------------------------------------------------------- memory

// With the mutex held.
static bool take(int device, size_t size) {
    size_t limit = 0;
    if (simulated_fault_is("out-of-memory", &limit) && allocated_in_all + size > limit) {
        return false;
    }
    if (used[device] + size > devices[device].memory) {
        return false;
    }
    allocated_in_all += size;
    used[device] += size;
    peak[device] = used[device] > peak[device] ? used[device] : peak[device];
    counters[ALLOCATIONS]++;
    return true;
}

// With the mutex held.
static void add_block(struct block block) {
    if (block_count == block_space) {
        block_space = block_space != 0 ? 2 * block_space : 64;
        blocks      = realloc(blocks, block_space * sizeof *blocks);
    }
    blocks[block_count++] = block;
}

static struct memory memory_of(struct block block) {
    return (struct memory) {.address = (void *) block.device_address, .bytes = block.bytes};
}

// With the mutex held.
static void remove_block(size_t index) {
    const struct block block = blocks[index];
    if (block.handle == NULL) {
        used[block.device] -= block.size;
    }
    if (block.managed) {
        give_back(block.bytes, block.size);
    } else if (block.handle == NULL) {
        memory_delete(memory_of(block), block.size);
    } else {
        memory_unmap(memory_of(block), block.size);
    }
    blocks[index] = blocks[--block_count];
}

static struct memory new_memory(int device, size_t size, bool managed) {
    if (!managed) {
        return memory_new(device, size);
    }
    void * bytes = reserve(size, true);
    return (struct memory) {.address = bytes, .bytes = bytes};
}

void * simulated_allocate(int device, size_t size, bool managed) {
    if (simulated_device(device) == NULL || size == 0) {
        return NULL;
    }
    pthread_mutex_lock(&mutex);
    void * address = NULL;
    if (take(device, size)) {
        const struct memory memory = new_memory(device, size, managed);
        address                    = memory.address;
        add_block((struct block) {.device_address = (uintptr_t) address,
                                  .size           = size,
                                  .bytes          = memory.bytes,
                                  .device         = device,
                                  .managed        = managed});
    }
    pthread_mutex_unlock(&mutex);
    return address;
}

bool simulated_free(void * address) {
    bool found = false;
    pthread_mutex_lock(&mutex);
    for (size_t i = 0; i < block_count && !found; i++) {
        if (blocks[i].device_address == (uintptr_t) address && blocks[i].handle == NULL) {
            remove_block(i);
            found = true;
        }
    }
    pthread_mutex_unlock(&mutex);
    return found;
}

void * simulated_view(const void * address, size_t size, bool * on_device) {
    const uintptr_t start = (uintptr_t) address;
    void *          view  = (void *) start;
    *on_device            = false;
    pthread_mutex_lock(&mutex);
    for (size_t i = 0; i < block_count; i++) {
        const struct block * block = &blocks[i];
        if (start >= block->device_address && start < block->device_address + block->size) {
            *on_device = !block->managed;
            view       = start + size <= block->device_address + block->size ?
                             block->bytes + (start - block->device_address) :
                             NULL;
            break;
        }
    }
    pthread_mutex_unlock(&mutex);
    return view;
}

int simulated_device_of(const void * address) {
    int device = -1;
    pthread_mutex_lock(&mutex);
    for (size_t i = 0; i < block_count && device < 0; i++) {
        if ((uintptr_t) address - blocks[i].device_address < blocks[i].size) {
            device = blocks[i].device;
        }
    }
    pthread_mutex_unlock(&mutex);
    return device;
}

void simulated_memory(int device, size_t * free_bytes, size_t * total) {
    pthread_mutex_lock(&mutex);
    *total      = devices[device].memory;
    *free_bytes = devices[device].memory - used[device];
    pthread_mutex_unlock(&mutex);
}

// --------------------------------------------------------------------------------------------------- accounting

void simulated_count(enum simulated_counter counter, size_t by) {
    __atomic_fetch_add(&counters[counter], by, __ATOMIC_RELAXED);
}

void simulated_live(enum simulated_object object, int change) {
    __atomic_fetch_add(&live[object], change, __ATOMIC_RELAXED);
}

__attribute__((destructor)) static void report(void) {
    const char * path = getenv("SIMULATED_REPORT");
    if (path == NULL || user != getpid()) {
        return;
    }
    FILE * file = fopen(path, "w");
    if (file == NULL) {
        fprintf(stderr, "simulated device: %s: %s\n", path, strerror(errno));
        return;
    }
    fprintf(file, "{\n  \"devices\": [");
    for (int i = 0; i < device_count; i++) {
        fprintf(file, "%s\n    {\"capability\": \"%d.%d\", \"peak_bytes\": %zu, \"leaked_bytes\": %zu}", i > 0 ? "," : "",
                devices[i].major, devices[i].minor, peak[i], used[i]);
    }
    fprintf(file, "\n  ],\n  \"counts\": {");
    for (int i = 0; i < COUNTERS; i++) {
        fprintf(file, "%s\n    \"%s\": %zu", i > 0 ? "," : "", COUNTER_NAMES[i], counters[i]);
    }
    fprintf(file, "\n  },\n  \"leaked\": {");
    for (int i = 0; i < OBJECTS; i++) {
        fprintf(file, "%s\n    \"%s\": %ld", i > 0 ? "," : "", OBJECT_NAMES[i], live[i]);
    }
    fprintf(file, "\n  }\n}\n");
    fclose(file);
}

// -------------------------------------------------------------------------------------------- the driver's calls

CUresult cuInit(unsigned int flags) {
    return flags != 0 ? CUDA_ERROR_INVALID_VALUE : (CUresult) simulated_start();
}

CUresult cuDriverGetVersion(int * version) {
    // With the fault, a driver from before this major version: CUDA 12.8 for a build with 13.0.
    const int older = (CUDA_VERSION / 1000 - 1) * 1000 + 80;
    *version        = simulated_fault_is("driver-too-old", NULL) ? older : CUDA_VERSION;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int * count) {
    *count = device_count;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice * device, int ordinal) {
    *device = ordinal;
    return simulated_device(ordinal) != NULL ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuDeviceGetName(char * name, int length, CUdevice id) {
    const struct simulated_device * device = simulated_device(id);
    if (device == NULL) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    snprintf(name, (size_t) length, "%s", device->name);
    return CUDA_SUCCESS;
}

CUresult cuDeviceTotalMem(size_t * bytes, CUdevice id) {
    const struct simulated_device * device = simulated_device(id);
    *bytes                                 = device != NULL ? device->memory : 0;
    return device != NULL ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuDeviceGetAttribute(int * value, CUdevice_attribute attribute, CUdevice id) {
    const struct simulated_device * device = simulated_device(id);
    if (device == NULL) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    switch (attribute) {
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
            *value = device->major;
            return CUDA_SUCCESS;
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
            *value = device->minor;
            return CUDA_SUCCESS;
        case CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED:
            *value = !simulated_fault_is("no-vmm", NULL);
            return CUDA_SUCCESS;
        default:
            simulated_count(REFUSED, 1);
            return CUDA_ERROR_INVALID_VALUE;
    }
}

CUresult cuGetErrorString(CUresult error, const char ** text) {
    switch (error) {
        case CUDA_SUCCESS:
            *text = "no error";
            break;
        case CUDA_ERROR_OUT_OF_MEMORY:
            *text = "out of memory";
            break;
        case CUDA_ERROR_NOT_INITIALIZED:
            *text = "initialization error";
            break;
        case CUDA_ERROR_NO_DEVICE:
            *text = "no CUDA-capable device is detected";
            break;
        default:
            *text = "error of the simulated GPU";
    }
    return CUDA_SUCCESS;
}

// ------------------------------------------------------------------------------------- virtual memory management

static CUresult known(CUmemLocation location) {
    if (location.type == CU_MEM_LOCATION_TYPE_DEVICE && simulated_device(location.id) != NULL) {
        return CUDA_SUCCESS;
    }
    simulated_count(REFUSED, 1);
    return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemGetAllocationGranularity(
    size_t * granularity, const CUmemAllocationProp * properties, CUmemAllocationGranularity_flags option) {
    (void) option;
    *granularity = GRANULARITY;
    return known(properties->location);
}

CUresult cuMemAddressReserve(CUdeviceptr * address, size_t size, size_t alignment, CUdeviceptr wish, unsigned long long flags) {
    (void) alignment;
    (void) wish;
    (void) flags;
    void * reserved = reserve(size, false);
    *address        = (CUdeviceptr) (uintptr_t) reserved;
    if (reserved == NULL) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    simulated_live(RESERVATIONS, 1);
    return CUDA_SUCCESS;
}

CUresult cuMemAddressFree(CUdeviceptr address, size_t size) {
    simulated_live(RESERVATIONS, -1);
    return give_back((void *) (uintptr_t) address, size) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemCreate(
    CUmemGenericAllocationHandle * result, size_t size, const CUmemAllocationProp * properties, unsigned long long flags) {
    (void) flags;
    const int device = properties->location.id;
    if (simulated_device(device) == NULL || size % GRANULARITY != 0 || simulated_fault_is("no-vmm", NULL)) {
        simulated_count(REFUSED, 1);
        return CUDA_ERROR_INVALID_VALUE;
    }
    pthread_mutex_lock(&mutex);
    const bool enough = take(device, size);
    pthread_mutex_unlock(&mutex);
    if (!enough) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    struct handle * handle = malloc(sizeof *handle);
    *handle                = (struct handle) {.size = size, .device = device, .references = 1};
    *result                = (CUmemGenericAllocationHandle) (uintptr_t) handle;
    simulated_live(MEMORY_HANDLES, 1);
    return CUDA_SUCCESS;
}

// With the mutex held.
static void let_go(struct handle * handle) {
    if (--handle->references == 0) {
        used[handle->device] -= handle->size;
        free(handle);
    }
}

CUresult cuMemRelease(CUmemGenericAllocationHandle handle) {
    pthread_mutex_lock(&mutex);
    let_go((struct handle *) (uintptr_t) handle);
    pthread_mutex_unlock(&mutex);
    simulated_live(MEMORY_HANDLES, -1);
    return CUDA_SUCCESS;
}

CUresult cuMemMap(CUdeviceptr address, size_t size, size_t offset, CUmemGenericAllocationHandle id, unsigned long long flags) {
    (void) flags;
    struct handle * handle = (struct handle *) (uintptr_t) id;
    if (offset != 0 || size != handle->size) {
        simulated_count(REFUSED, 1);
        return CUDA_ERROR_INVALID_VALUE;
    }
    pthread_mutex_lock(&mutex);
    handle->references++;
    add_block((struct block) {.device_address = (uintptr_t) address,
                              .size           = size,
                              .bytes          = memory_map(handle->device, (void *) (uintptr_t) address, size).bytes,
                              .device         = handle->device,
                              .handle         = handle});
    pthread_mutex_unlock(&mutex);
    return CUDA_SUCCESS;
}

CUresult cuMemSetAccess(CUdeviceptr address, size_t size, const CUmemAccessDesc * description, size_t count) {
    (void) size;
    const struct simulated_device * owner = simulated_device(simulated_device_of((void *) (uintptr_t) address));
    for (size_t i = 0; i < count; i++) {
        const CUresult error = known(description[i].location);
        if (error != CUDA_SUCCESS) {
            return error;
        }
        if (owner == NULL || !simulated_peers(owner, simulated_device(description[i].location.id))) {
            simulated_count(REFUSED, 1);
            return CUDA_ERROR_INVALID_VALUE;
        }
    }
    return CUDA_SUCCESS;
}

CUresult cuMemUnmap(CUdeviceptr address, size_t size) {
    pthread_mutex_lock(&mutex);
    for (size_t i = block_count; i-- > 0;) {
        struct handle * handle = blocks[i].handle;
        if (handle != NULL && blocks[i].device_address >= address && blocks[i].device_address < address + size) {
            remove_block(i);
            let_go(handle);
        }
    }
    pthread_mutex_unlock(&mutex);
    return CUDA_SUCCESS;
}
