// A backend of ggml on CUDA that computes nothing. See README.md.
#include "ggml-backend-impl.h"
#include "ggml-impl.h"

#include <cublas_v2.h>
#include <cuda.h>
#include <cuda_runtime.h>

#include <cstring>
#include <deque>
#include <string>
#include <vector>

// ------------------------------------------------------------------------- the kernel, registered as nvcc's code does it

extern "C" {
extern const unsigned char kernel_code[];  // a fat binary of nvcc's
void ** __cudaRegisterFatBinary(void * wrapper);
void    __cudaRegisterFatBinaryEnd(void ** handle);
void    __cudaUnregisterFatBinary(void ** handle);
void    __cudaRegisterFunction(void ** handle, const char * stub, char * device_stub, const char * name, int limit,
                               uint3 * thread, uint3 * block_id, dim3 * block_size, dim3 * grid_size, int * warp_size);
}

namespace {

struct wrapper {
    int          magic;
    int          version;
    const void * data;
    void *       file;
};

void nothing() {}  // its address identifies the kernel

struct registration {
    wrapper of_code = {0x466243b1, 1, kernel_code, nullptr};
    void ** handle;

    registration() : handle(__cudaRegisterFatBinary(&of_code)) {
        char name[] = "nothing";
        __cudaRegisterFunction(handle, (const char *) &nothing, name, "nothing", -1, nullptr, nullptr, nullptr, nullptr, nullptr);
        __cudaRegisterFatBinaryEnd(handle);
    }

    ~registration() { __cudaUnregisterFatBinary(handle); }
} registered;

void check(cudaError_t error, const char * what) {
    if (error != cudaSuccess) {
        GGML_ABORT("CUDA error: %s: %s", what, cudaGetErrorString(error));
    }
}

void check(CUresult error, const char * what) {
    if (error != CUDA_SUCCESS) {
        const char * text = "unknown";
        cuGetErrorString(error, &text);
        GGML_ABORT("CUDA error: %s: %s", what, text);
    }
}

#define CHECK(call) check(call, #call)

// ------------------------------------------------------------------------------------------------------------- devices

struct device {
    int                      index;
    std::string              name;
    std::string              description;
    std::string              bus;
    ggml_backend_buffer_type memory;
};

device & of(ggml_backend_dev_t dev) {
    return *(device *) dev->context;
}

device & of(ggml_backend_buffer_type_t type) {
    return *(device *) type->context;
}

// -------------------------------------------------------------------------------------------------------------- memory

struct block {
    device * on;
    char *   base;
};

block & of(ggml_backend_buffer_t buffer) {
    return *(block *) buffer->context;
}

void free_buffer(ggml_backend_buffer_t buffer) {
    CHECK(cudaSetDevice(of(buffer).on->index));
    CHECK(cudaFree(of(buffer).base));
    delete &of(buffer);
}

void * base_of(ggml_backend_buffer_t buffer) {
    return of(buffer).base;
}

void fill(ggml_backend_buffer_t buffer, ggml_tensor * tensor, uint8_t value, size_t offset, size_t size) {
    CHECK(cudaSetDevice(of(buffer).on->index));
    CHECK(cudaMemset((char *) tensor->data + offset, value, size));
}

void set(ggml_backend_buffer_t buffer, ggml_tensor * tensor, const void * data, size_t offset, size_t size) {
    CHECK(cudaSetDevice(of(buffer).on->index));
    CHECK(cudaMemcpy((char *) tensor->data + offset, data, size, cudaMemcpyHostToDevice));
}

void get(ggml_backend_buffer_t buffer, const ggml_tensor * tensor, void * data, size_t offset, size_t size) {
    CHECK(cudaSetDevice(of(buffer).on->index));
    CHECK(cudaMemcpy(data, (const char *) tensor->data + offset, size, cudaMemcpyDeviceToHost));
}

bool copy(ggml_backend_buffer_t buffer, const ggml_tensor * from, ggml_tensor * to) {
    ggml_backend_buffer_t source = from->view_src != nullptr ? from->view_src->buffer : from->buffer;
    if (source->iface.free_buffer != free_buffer) {
        return false;
    }
    CHECK(cudaMemcpyPeerAsync(to->data, of(buffer).on->index, from->data, of(source).on->index, ggml_nbytes(from), nullptr));
    return true;
}

void clear(ggml_backend_buffer_t buffer, uint8_t value) {
    CHECK(cudaSetDevice(of(buffer).on->index));
    CHECK(cudaMemset(of(buffer).base, value, buffer->size));
}

const char * name_of(ggml_backend_buffer_type_t type) {
    return of(type).name.c_str();
}

ggml_backend_buffer_t allocate(ggml_backend_buffer_type_t type, size_t size) {
    void * base = nullptr;
    CHECK(cudaSetDevice(of(type).index));
    const cudaError_t error = cudaMalloc(&base, size);
    if (error != cudaSuccess) {
        (void) cudaGetLastError();
        GGML_LOG_ERROR("%s: cudaMalloc of %zu bytes on device %d: %s\n", __func__, size, of(type).index, cudaGetErrorString(error));
        return nullptr;
    }
    static const ggml_backend_buffer_i INTERFACE = {
        free_buffer, base_of, nullptr, fill, set, get, nullptr, nullptr, copy, clear, nullptr,
    };
    return ggml_backend_buffer_init(type, INTERFACE, new block {&of(type), (char *) base}, size);
}

size_t alignment(ggml_backend_buffer_type_t) {
    return 128;
}

// Memory for the time of one backend, through the driver's own functions.
struct scratch {
    CUdeviceptr                  address = 0;
    CUmemGenericAllocationHandle handle  = 0;
    size_t                       size    = 0;

    explicit scratch(int index) {
        CUdevice on        = 0;
        int      supported = 0;
        CHECK(cuDeviceGet(&on, index));
        CHECK(cuDeviceGetAttribute(&supported, CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, on));
        if (!supported) {
            return;
        }
        CUmemAllocationProp properties = {};
        properties.type                = CU_MEM_ALLOCATION_TYPE_PINNED;
        properties.location            = {CU_MEM_LOCATION_TYPE_DEVICE, {index}};
        CUmemAccessDesc access         = {};
        access.location                = properties.location;
        access.flags                   = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
        CHECK(cuMemGetAllocationGranularity(&size, &properties, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED));
        CHECK(cuMemCreate(&handle, size, &properties, 0));
        CHECK(cuMemAddressReserve(&address, size, 0, 0, 0));
        CHECK(cuMemMap(address, size, 0, handle, 0));
        CHECK(cuMemSetAccess(address, size, &access, 1));
        CHECK(cuMemRelease(handle));
    }

    ~scratch() {
        if (size != 0) {
            CHECK(cuMemUnmap(address, size));
            CHECK(cuMemAddressFree(address, size));
        }
    }
};

// ------------------------------------------------------------------------------------------------------------ computing

struct worker {
    device *       on;
    cudaStream_t   stream = nullptr;
    cublasHandle_t blas   = nullptr;
    scratch        memory;

    explicit worker(device * of) : on(of), memory(of->index) {
        CHECK(cudaSetDevice(on->index));
        CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
        GGML_ASSERT(cublasCreate(&blas) == CUBLAS_STATUS_SUCCESS);
        GGML_ASSERT(cublasSetStream(blas, stream) == CUBLAS_STATUS_SUCCESS);
    }

    ~worker() {
        cublasDestroy(blas);
        CHECK(cudaStreamDestroy(stream));
    }
};

worker & of(ggml_backend_t backend) {
    return *(worker *) backend->context;
}

const char * name_of(ggml_backend_t backend) {
    return of(backend).on->name.c_str();
}

void free_backend(ggml_backend_t backend) {
    delete &of(backend);
    delete backend;
}

ggml_status compute(ggml_backend_t backend, ggml_cgraph * graph) {
    worker & w = of(backend);
    CHECK(cudaSetDevice(w.on->index));
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        switch (ggml_graph_node(graph, i)->op) {
            case GGML_OP_NONE:
            case GGML_OP_RESHAPE:
            case GGML_OP_VIEW:
            case GGML_OP_PERMUTE:
            case GGML_OP_TRANSPOSE:
                break;
            default:
                CHECK(cudaLaunchKernel((const void *) &nothing, dim3(1), dim3(1), nullptr, 0, w.stream));
        }
    }
    CHECK(cudaStreamSynchronize(w.stream));
    return GGML_STATUS_SUCCESS;
}

// ----------------------------------------------------------------------------------------------------------- interfaces

const char * name_of(ggml_backend_dev_t dev) {
    return of(dev).name.c_str();
}

const char * description_of(ggml_backend_dev_t dev) {
    return of(dev).description.c_str();
}

void memory_of(ggml_backend_dev_t dev, size_t * free, size_t * total) {
    CHECK(cudaSetDevice(of(dev).index));
    CHECK(cudaMemGetInfo(free, total));
}

enum ggml_backend_dev_type type_of(ggml_backend_dev_t) {
    return GGML_BACKEND_DEVICE_TYPE_GPU;
}

void describe(ggml_backend_dev_t dev, ggml_backend_dev_props * props) {
    *props             = {};
    props->name        = name_of(dev);
    props->description = description_of(dev);
    props->type        = type_of(dev);
    props->device_id   = of(dev).bus.c_str();
    memory_of(dev, &props->memory_free, &props->memory_total);
}

ggml_backend_t start(ggml_backend_dev_t dev, const char *) {
    static ggml_guid            GUID      = {0x73, 0x6d, 0x61, 0x6c, 0x6c};
    static const ggml_backend_i INTERFACE = [] {
        ggml_backend_i made = {};
        made.get_name       = name_of;
        made.free           = free_backend;
        made.graph_compute  = compute;
        return made;
    }();
    return new ggml_backend {&GUID, INTERFACE, dev, new worker(&of(dev))};
}

ggml_backend_buffer_type_t memory_type(ggml_backend_dev_t dev) {
    return &of(dev).memory;
}

bool supports(ggml_backend_dev_t, const ggml_tensor *) {
    return true;
}

bool supports_memory(ggml_backend_dev_t dev, ggml_backend_buffer_type_t type) {
    return type->device == dev;
}

const ggml_backend_device_i DEVICE = {
    name_of, description_of, memory_of, type_of, describe, start, memory_type, nullptr, nullptr, supports, supports_memory,
    nullptr, nullptr, nullptr, nullptr,
};
const ggml_backend_buffer_type_i MEMORY = {name_of, allocate, alignment, nullptr, nullptr, nullptr};

struct registry {
    std::deque<device>              devices;
    std::deque<ggml_backend_device> shown;
};

registry & all() {
    static registry & found = *new registry;
    return found;
}

const char * name_of(ggml_backend_reg_t) {
    return "CUDA";
}

size_t count(ggml_backend_reg_t) {
    return all().shown.size();
}

ggml_backend_dev_t device_at(ggml_backend_reg_t, size_t index) {
    return &all().shown.at(index);
}

ggml_backend_reg_t find_devices() {
    static ggml_backend_reg found = {GGML_BACKEND_API_VERSION, {name_of, count, device_at, nullptr}, nullptr};
    int                     number = 0;
    if (all().shown.empty() && cudaGetDeviceCount(&number) == cudaSuccess) {
        for (int index = 0; index < number; index++) {
            cudaDeviceProp properties;
            char           bus[16] = "";
            CHECK(cudaGetDeviceProperties(&properties, index));
            CHECK(cudaDeviceGetPCIBusId(bus, sizeof bus, index));
            device & one = all().devices.emplace_back(device {index, "CUDA" + std::to_string(index), properties.name, bus, {}});
            ggml_backend_device & as = all().shown.emplace_back(ggml_backend_device {DEVICE, &found, &one});
            one.memory               = {MEMORY, &as, &one};
        }
    }
    return &found;
}

}  // namespace

GGML_BACKEND_DL_IMPL(find_devices)
