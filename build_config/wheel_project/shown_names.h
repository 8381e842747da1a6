// Windows: each source of ggml-cuda includes this first, so that its calls go to shown_devices.cpp.
#pragma once

#include <cuda_runtime.h>

#ifndef GGML_CUDA_NO_VMM
#    include <cuda.h>
#endif

#define JOINED(a, b) a##b
#define DECLARED(name) extern "C" decltype(name) JOINED(shown_, name);
DECLARED(cudaGetDeviceCount)
DECLARED(cudaGetDevice)
DECLARED(cudaSetDevice)
DECLARED(cudaGetDeviceProperties)
DECLARED(cudaDeviceGetAttribute)
DECLARED(cudaDeviceGetPCIBusId)
DECLARED(cudaDeviceCanAccessPeer)
DECLARED(cudaDeviceEnablePeerAccess)
DECLARED(cudaMemcpyPeerAsync)
DECLARED(cudaHostRegister)
// In C++ these two have overloads.
extern "C" cudaError_t CUDARTAPI shown_cudaMallocHost(void ** pointer, size_t size);
extern "C" cudaError_t CUDARTAPI shown_cudaHostAlloc(void ** pointer, size_t size, unsigned int flags);
#ifndef GGML_CUDA_NO_VMM
DECLARED(cuDeviceGet)
DECLARED(cuMemCreate)
DECLARED(cuMemGetAllocationGranularity)
DECLARED(cuMemSetAccess)
#endif
#undef DECLARED
#undef JOINED

#ifdef cudaGetDeviceProperties  // in CUDA 12
#    undef cudaGetDeviceProperties
#    define cudaGetDeviceProperties shown_cudaGetDeviceProperties_v2
#else
#    define cudaGetDeviceProperties shown_cudaGetDeviceProperties
#endif
#define cudaGetDeviceCount shown_cudaGetDeviceCount
#define cudaGetDevice shown_cudaGetDevice
#define cudaSetDevice shown_cudaSetDevice
#define cudaDeviceGetAttribute shown_cudaDeviceGetAttribute
#define cudaDeviceGetPCIBusId shown_cudaDeviceGetPCIBusId
#define cudaDeviceCanAccessPeer shown_cudaDeviceCanAccessPeer
#define cudaDeviceEnablePeerAccess shown_cudaDeviceEnablePeerAccess
#define cudaMemcpyPeerAsync shown_cudaMemcpyPeerAsync
#define cudaMallocHost shown_cudaMallocHost
#define cudaHostAlloc shown_cudaHostAlloc
#define cudaHostRegister shown_cudaHostRegister
#define cuDeviceGet shown_cuDeviceGet
#define cuMemCreate shown_cuMemCreate
#define cuMemGetAllocationGranularity shown_cuMemGetAllocationGranularity
#define cuMemSetAccess shown_cuMemSetAccess
