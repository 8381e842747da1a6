// The computations of cuBLAS on the simulated GPU: each call is counted, nothing is computed.
#include "work.h"

#include <cublas_v2.h>

// Every computation: functions.toml makes each name an alias of it. Arguments after the handle are ignored.
cublasStatus_t simulated_compute(cublasHandle_t handle);

cublasStatus_t simulated_compute(cublasHandle_t handle) {
    if (handle == NULL) {
        simulated_count(REFUSED, 1);
        return CUBLAS_STATUS_NOT_INITIALIZED;
    }
    simulated_count(CUBLAS_CALLS, 1);
    return CUBLAS_STATUS_SUCCESS;
}
