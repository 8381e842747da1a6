// Shows ggml-cuda only the devices that this shard has code for.
//
// ggml-cuda takes every device that CUDA counts, and its first kernel on one without code in this shard would end the
// process with "no kernel image is available for execution on the device". So each call of this library that counts,
// names or takes a device goes through the functions below. They number the shown devices from 0. No other user of CUDA in
// the process is affected: they call CUDA itself.
//
// On Linux the linker exchanges the calls (--wrap, cmake/cuda.cmake). link.exe cannot: on Windows shown_names.h, which each
// source of ggml-cuda includes first, gives the calls other names.
//
// A function of CUDA that is new here and has a device among its parameters belongs into this file: a test compares the
// prototypes of all functions that the shard needs.

#include "shard.h"

#include <cuda_runtime_api.h>

#ifndef GGML_CUDA_NO_VMM
#    include <cuda.h>
#endif

// Names of CUDA can be macros (cudaGetDeviceProperties is ..._v2 in CUDA 12), so each is expanded before it is used.
#define JOINED(a, b) a##b

#ifdef _WIN32
#    define NAME(name) JOINED(shown_, name)
#    define REAL(name) name
#    define DECLARED(name) extern "C" decltype(name) NAME(name);
#else
#    define NAME(name) JOINED(__wrap_, name)
#    define REAL(name) JOINED(__real_, name)
#    define DECLARED(name) extern "C" decltype(name) REAL(name);
#endif

DECLARED(cudaGetDeviceCount)
DECLARED(cudaGetDevice)
DECLARED(cudaSetDevice)
DECLARED(cudaGetDeviceProperties)
DECLARED(cudaDeviceGetAttribute)
DECLARED(cudaDeviceGetPCIBusId)
DECLARED(cudaDeviceCanAccessPeer)
DECLARED(cudaDeviceEnablePeerAccess)
DECLARED(cudaMemcpyPeerAsync)
DECLARED(cudaMallocHost)
DECLARED(cudaHostAlloc)
DECLARED(cudaHostRegister)
#ifndef GGML_CUDA_NO_VMM
DECLARED(cuDeviceGet)
DECLARED(cuMemCreate)
DECLARED(cuMemGetAllocationGranularity)
DECLARED(cuMemSetAccess)
#endif

#ifdef __GNUC__
#    pragma GCC visibility push(hidden)
#endif

namespace {

// CUDA's own number of a shown device; one that CUDA refuses for any other.
int own(int shown) {
    const std::vector<int> & devices = shown_devices();
    return shown >= 0 && (size_t) shown < devices.size() ? devices[(size_t) shown] : -1;
}

// The place of the current device of this thread among the shown ones. A thread begins on CUDA's device 0: if that one is
// not shown, the first shown one becomes current.
cudaError_t current(int & shown) {
    int               device = 0;
    const cudaError_t error  = REAL(cudaGetDevice)(&device);
    if (error != cudaSuccess) {
        return error;
    }
    const std::vector<int> & devices = shown_devices();
    for (size_t i = 0; i < devices.size(); i++) {
        if (devices[i] == device) {
            shown = (int) i;
            return cudaSuccess;
        }
    }
    shown = 0;
    return devices.empty() ? cudaErrorNoDevice : REAL(cudaSetDevice)(devices[0]);
}

// Before memory of the host is made known to the current device.
cudaError_t be_on_a_shown_device() {
    int shown = 0;
    return current(shown);
}

std::vector<int> find_shown_devices() {
    std::vector<int> found;
    int              count = 0;
    if (REAL(cudaGetDeviceCount)(&count) != cudaSuccess) {
        (void) cudaGetLastError();  // leave no error behind for whoever uses the runtime next
        return found;
    }
    for (int device = 0; device < count; device++) {
        if (shard_fit(device_capability(device)) > 0) {
            found.push_back(device);
        }
    }
    return found;
}

}  // namespace

int device_capability(int device) {
    int major = 0;
    int minor = 0;
    if (REAL(cudaDeviceGetAttribute)(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess ||
        REAL(cudaDeviceGetAttribute)(&minor, cudaDevAttrComputeCapabilityMinor, device) != cudaSuccess) {
        (void) cudaGetLastError();
        return 0;
    }
    return 10 * major + minor;
}

const std::vector<int> & shown_devices() {
    // Never destroyed: ggml-cuda still frees memory when the process ends.
    static const std::vector<int> & devices = *new std::vector<int>(find_shown_devices());
    return devices;
}

// ------------------------------------------------------------------------------------------ the runtime's functions

extern "C" {

cudaError_t CUDARTAPI NAME(cudaGetDeviceCount)(int * count) {
    const cudaError_t error = REAL(cudaGetDeviceCount)(count);
    if (error == cudaSuccess) {
        *count = (int) shown_devices().size();
    }
    return error == cudaSuccess && *count == 0 ? cudaErrorNoDevice : error;
}

cudaError_t CUDARTAPI NAME(cudaGetDevice)(int * device) {
    return current(*device);
}

cudaError_t CUDARTAPI NAME(cudaSetDevice)(int device) {
    return REAL(cudaSetDevice)(own(device));
}

cudaError_t CUDARTAPI NAME(cudaGetDeviceProperties)(cudaDeviceProp * properties, int device) {
    return REAL(cudaGetDeviceProperties)(properties, own(device));
}

cudaError_t CUDARTAPI NAME(cudaDeviceGetAttribute)(int * value, cudaDeviceAttr attribute, int device) {
    return REAL(cudaDeviceGetAttribute)(value, attribute, own(device));
}

cudaError_t CUDARTAPI NAME(cudaDeviceGetPCIBusId)(char * text, int length, int device) {
    return REAL(cudaDeviceGetPCIBusId)(text, length, own(device));
}

cudaError_t CUDARTAPI NAME(cudaDeviceCanAccessPeer)(int * can, int device, int peer) {
    return REAL(cudaDeviceCanAccessPeer)(can, own(device), own(peer));
}

cudaError_t CUDARTAPI NAME(cudaDeviceEnablePeerAccess)(int peer, unsigned int flags) {
    return REAL(cudaDeviceEnablePeerAccess)(own(peer), flags);
}

cudaError_t CUDARTAPI NAME(cudaMemcpyPeerAsync)(
    void * target, int target_device, const void * source, int source_device, size_t size, cudaStream_t stream) {
    return REAL(cudaMemcpyPeerAsync)(target, own(target_device), source, own(source_device), size, stream);
}

cudaError_t CUDARTAPI NAME(cudaMallocHost)(void ** pointer, size_t size) {
    const cudaError_t error = be_on_a_shown_device();
    return error != cudaSuccess ? error : REAL(cudaMallocHost)(pointer, size);
}

cudaError_t CUDARTAPI NAME(cudaHostAlloc)(void ** pointer, size_t size, unsigned int flags) {
    const cudaError_t error = be_on_a_shown_device();
    return error != cudaSuccess ? error : REAL(cudaHostAlloc)(pointer, size, flags);
}

cudaError_t CUDARTAPI NAME(cudaHostRegister)(void * pointer, size_t size, unsigned int flags) {
    const cudaError_t error = be_on_a_shown_device();
    return error != cudaSuccess ? error : REAL(cudaHostRegister)(pointer, size, flags);
}

}  // extern "C"

// ------------------------------------------------------------------------------------------- the driver's functions

#ifndef GGML_CUDA_NO_VMM

namespace {

CUmemLocation own(CUmemLocation location) {
    if (location.type == CU_MEM_LOCATION_TYPE_DEVICE) {
        location.id = own(location.id);
    }
    return location;
}

CUmemAllocationProp own(const CUmemAllocationProp & properties) {
    CUmemAllocationProp changed = properties;
    changed.location            = own(properties.location);
    return changed;
}

}  // namespace

extern "C" {

CUresult CUDAAPI NAME(cuDeviceGet)(CUdevice * device, int ordinal) {
    return REAL(cuDeviceGet)(device, own(ordinal));
}

CUresult CUDAAPI NAME(cuMemCreate)(
    CUmemGenericAllocationHandle * handle, size_t size, const CUmemAllocationProp * properties, unsigned long long flags) {
    const CUmemAllocationProp changed = own(*properties);
    return REAL(cuMemCreate)(handle, size, &changed, flags);
}

CUresult CUDAAPI NAME(cuMemGetAllocationGranularity)(
    size_t * granularity, const CUmemAllocationProp * properties, CUmemAllocationGranularity_flags option) {
    const CUmemAllocationProp changed = own(*properties);
    return REAL(cuMemGetAllocationGranularity)(granularity, &changed, option);
}

CUresult CUDAAPI NAME(cuMemSetAccess)(CUdeviceptr address, size_t size, const CUmemAccessDesc * access, size_t count) {
    std::vector<CUmemAccessDesc> changed(access, access + count);
    for (CUmemAccessDesc & one : changed) {
        one.location = own(one.location);
    }
    return REAL(cuMemSetAccess)(address, size, changed.data(), count);
}

}  // extern "C"

#endif

#ifdef __GNUC__
#    pragma GCC visibility pop
#endif
