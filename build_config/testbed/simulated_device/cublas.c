// A double of cuBLAS on the simulated GPU, without its computations, which are in simulated_compute.c.
// See README.md.
#include "work.h"

#include <cublas_v2.h>
#include <stdlib.h>

cublasStatus_t cublasCreate(cublasHandle_t * handle) {
    if (simulated_start() != 0) {
        return CUBLAS_STATUS_NOT_INITIALIZED;
    }
    *handle = calloc(1, sizeof **handle);
    simulated_live(CUBLAS_HANDLES, 1);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy(cublasHandle_t handle) {
    free(handle);
    simulated_live(CUBLAS_HANDLES, -1);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream) {
    handle->stream = stream;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
    (void) handle;
    (void) mode;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetWorkspace(cublasHandle_t handle, void * workspace, size_t size) {
    (void) handle;
    (void) workspace;
    (void) size;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLoggerConfigure(int on, int to_stdout, int to_stderr, const char * file) {
    (void) on;
    (void) to_stdout;
    (void) to_stderr;
    (void) file;
    return CUBLAS_STATUS_SUCCESS;
}

const char * cublasGetStatusString(cublasStatus_t status) {
    return status == CUBLAS_STATUS_SUCCESS ? "success" : "error of the simulated GPU";
}
