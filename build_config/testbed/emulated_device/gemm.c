// cuBLAS of the emulated GPU: matrix products and triangular systems in plain C, with sums in double precision. They are not
// NVIDIA's: what a wheel computes with cuBLAS is replaced here, and only the arguments of the calls are the wheel's own.
#include "ptx_half.h"
#include "work.h"

#include <cublas_v2.h>

#include <stdio.h>

// A matrix of a batch: its content for the host, and how to read it.
struct matrix {
    const void *  pointer;  // of the device; for a batch by pointers: of the array of them
    cudaDataType  type;
    int           leading;
    long long     stride;
};

struct product {
    cublasOperation_t transpose_a, transpose_b;
    int               m, n, k, count;
    double            alpha, beta;
    struct matrix     a, b, c;
    bool              by_pointers;
};

static size_t size_of(cudaDataType type) {
    return type == CUDA_R_32F ? sizeof(float) : sizeof(uint16_t);
}

static double get(const char * bytes, cudaDataType type, size_t index) {
    if (type == CUDA_R_32F) {
        float value;
        memcpy(&value, bytes + index * sizeof value, sizeof value);
        return value;
    }
    uint16_t bits;
    memcpy(&bits, bytes + index * sizeof bits, sizeof bits);
    return type == CUDA_R_16BF ? ptx_brain(bits) : ptx_half(bits);
}

static void put(char * bytes, cudaDataType type, size_t index, double value) {
    if (type == CUDA_R_32F) {
        const float single = (float) value;
        memcpy(bytes + index * sizeof single, &single, sizeof single);
        return;
    }
    uint16_t bits = ptx_to_brain((float) value);
    if (type == CUDA_R_16F) {
        const _Float16 half = (_Float16) value;  // rounded once, unlike by way of a float
        memcpy(&bits, &half, sizeof bits);
    }
    memcpy(bytes + index * sizeof bits, &bits, sizeof bits);
}

// The bytes of a matrix with so many rows and columns in one batch. NULL if they are not inside one allocation.
static char * view(const struct product * product, const struct matrix * matrix, int batch, int rows, int columns) {
    bool         on_device = false;
    const char * start     = matrix->pointer;
    if (product->by_pointers) {
        const void * const * pointers = simulated_view(matrix->pointer, sizeof(void *) * (size_t) product->count, &on_device);
        if (pointers == NULL) {
            return NULL;
        }
        start = pointers[batch];
    } else {
        start += matrix->stride * batch * (long long) size_of(matrix->type);
    }
    const size_t elements = (size_t) matrix->leading * (size_t) (columns - 1) + (size_t) rows;
    return simulated_view(start, elements * size_of(matrix->type), &on_device);
}

// The vectors of length k whose products are summed, one after the other: rows of op(A), or columns of op(B).
static double * vectors(const char * bytes, const struct matrix * matrix, int count, int k, bool contiguous) {
    double * result = malloc(sizeof(double) * (size_t) count * (size_t) k);
    for (int i = 0; i < count; i++) {
        for (int x = 0; x < k; x++) {
            const size_t row = (size_t) (contiguous ? x : i), column = (size_t) (contiguous ? i : x);
            result[(size_t) i * (size_t) k + (size_t) x] = get(bytes, matrix->type, column * (size_t) matrix->leading + row);
        }
    }
    return result;
}

static double dot(const double * restrict a, const double * restrict b, int k) {
    double sums[8] = {0};
    int    x       = 0;
    for (; x + 8 <= k; x += 8) {
        for (int lane = 0; lane < 8; lane++) {
            sums[lane] += a[x + lane] * b[x + lane];
        }
    }
    for (; x < k; x++) {
        sums[0] += a[x] * b[x];
    }
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

static int multiply(void * data) {
    const struct product * product = data;
    const bool             ta = product->transpose_a != CUBLAS_OP_N, tb = product->transpose_b != CUBLAS_OP_N;
    const int              m = product->m, n = product->n, k = product->k;
    for (int batch = 0; batch < product->count; batch++) {
        const char * a = view(product, &product->a, batch, ta ? k : m, ta ? m : k);
        const char * b = view(product, &product->b, batch, tb ? n : k, tb ? k : n);
        char *       c = view(product, &product->c, batch, m, n);
        if (a == NULL || b == NULL || c == NULL) {
            fprintf(stderr, "emulated device: cuBLAS got a matrix that is not inside one allocation\n");
            return cudaErrorIllegalAddress;
        }
        double * rows    = vectors(a, &product->a, m, k, ta);
        double * columns = vectors(b, &product->b, n, k, !tb);
        for (int j = 0; j < n; j++) {
            for (int i = 0; i < m; i++) {
                const size_t at  = (size_t) j * (size_t) product->c.leading + (size_t) i;
                const double old = product->beta != 0 ? product->beta * get(c, product->c.type, at) : 0;
                const double sum = dot(rows + (size_t) i * (size_t) k, columns + (size_t) j * (size_t) k, k);
                put(c, product->c.type, at, product->alpha * sum + old);
            }
        }
        free(rows);
        free(columns);
    }
    return cudaSuccess;
}

static bool known(cudaDataType type) {
    return type == CUDA_R_32F || type == CUDA_R_16F || type == CUDA_R_16BF;
}

static cublasStatus_t compute(cublasHandle_t handle, struct product product) {
    if (handle == NULL) {
        simulated_count(REFUSED, 1);
        return CUBLAS_STATUS_NOT_INITIALIZED;
    }
    if (!known(product.a.type) || !known(product.b.type) || !known(product.c.type)) {
        fprintf(stderr, "emulated device: cuBLAS was called with a type that is not emulated\n");
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    simulated_count(CUBLAS_CALLS, 1);
    return work_do(handle->stream, work_of(multiply, &product, sizeof product)) == 0 ? CUBLAS_STATUS_SUCCESS :
                                                                                     CUBLAS_STATUS_EXECUTION_FAILED;
}

// alpha and beta have the type in which is computed; they are on the host.
static double scalar(const void * pointer, cublasComputeType_t type) {
    const bool half = type == CUBLAS_COMPUTE_16F || type == CUBLAS_COMPUTE_16F_PEDANTIC;
    return get(pointer, half ? CUDA_R_16F : CUDA_R_32F, 0);
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                            const void * alpha, const void * a, cudaDataType a_type, int lda, const void * b, cudaDataType b_type,
                            int ldb, const void * beta, void * c, cudaDataType c_type, int ldc, cublasComputeType_t type,
                            cublasGemmAlgo_t algorithm) {
    return cublasGemmStridedBatchedEx(handle, ta, tb, m, n, k, alpha, a, a_type, lda, 0, b, b_type, ldb, 0, beta, c, c_type, ldc,
                                      0, 1, type, algorithm);
}

cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                                          const void * alpha, const void * a, cudaDataType a_type, int lda, long long stride_a,
                                          const void * b, cudaDataType b_type, int ldb, long long stride_b, const void * beta,
                                          void * c, cudaDataType c_type, int ldc, long long stride_c, int count,
                                          cublasComputeType_t type, cublasGemmAlgo_t algorithm) {
    (void) algorithm;
    return compute(handle, (struct product) {.transpose_a = ta,
                                             .transpose_b = tb,
                                             .m           = m,
                                             .n           = n,
                                             .k           = k,
                                             .count       = count,
                                             .alpha       = scalar(alpha, type),
                                             .beta        = scalar(beta, type),
                                             .a           = {a, a_type, lda, stride_a},
                                             .b           = {b, b_type, ldb, stride_b},
                                             .c           = {c, c_type, ldc, stride_c}});
}

cublasStatus_t cublasGemmBatchedEx(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                                   const void * alpha, const void * const a[], cudaDataType a_type, int lda,
                                   const void * const b[], cudaDataType b_type, int ldb, const void * beta, void * const c[],
                                   cudaDataType c_type, int ldc, int count, cublasComputeType_t type, cublasGemmAlgo_t algorithm) {
    (void) algorithm;
    return compute(handle, (struct product) {.transpose_a = ta,
                                             .transpose_b = tb,
                                             .m           = m,
                                             .n           = n,
                                             .k           = k,
                                             .count       = count,
                                             .alpha       = scalar(alpha, type),
                                             .beta        = scalar(beta, type),
                                             .a           = {a, a_type, lda, 0},
                                             .b           = {b, b_type, ldb, 0},
                                             .c           = {c, c_type, ldc, 0},
                                             .by_pointers = true});
}

cublasStatus_t cublasSgemm(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                           const float * alpha, const float * a, int lda, const float * b, int ldb, const float * beta, float * c,
                           int ldc) {
    return cublasSgemmStridedBatched(handle, ta, tb, m, n, k, alpha, a, lda, 0, b, ldb, 0, beta, c, ldc, 0, 1);
}

cublasStatus_t cublasSgemmStridedBatched(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                                         const float * alpha, const float * a, int lda, long long stride_a, const float * b,
                                         int ldb, long long stride_b, const float * beta, float * c, int ldc, long long stride_c,
                                         int count) {
    return cublasGemmStridedBatchedEx(handle, ta, tb, m, n, k, alpha, a, CUDA_R_32F, lda, stride_a, b, CUDA_R_32F, ldb, stride_b,
                                      beta, c, CUDA_R_32F, ldc, stride_c, count, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
}

cublasStatus_t cublasSgemmBatched(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                                  const float * alpha, const float * const a[], int lda, const float * const b[], int ldb,
                                  const float * beta, float * const c[], int ldc, int count) {
    return cublasGemmBatchedEx(handle, ta, tb, m, n, k, alpha, (const void * const *) a, CUDA_R_32F, lda,
                               (const void * const *) b, CUDA_R_32F, ldb, beta, (void * const *) c, CUDA_R_32F, ldc, count,
                               CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
}

// A triangular system: X is B, which it replaces. With `flipped` the rows of the matrix are the columns of A; each vector of X
// is a column of B, or from the right a row.
struct system {
    struct product product;  // a, and c for B; n vectors of length m
    bool           flipped, lower, unit, right;
};

static int solve(void * data) {
    const struct system *  system  = data;
    const struct product * product = &system->product;
    const int              m = product->m, n = product->n;
    const size_t           lda = (size_t) product->a.leading, ldb = (size_t) product->c.leading;
    double *               x = malloc(sizeof(double) * (size_t) m);
    for (int batch = 0; batch < product->count; batch++) {
        const char * a = view(product, &product->a, batch, m, m);
        char *       b = view(product, &product->c, batch, system->right ? n : m, system->right ? m : n);
        if (a == NULL || b == NULL) {
            fprintf(stderr, "emulated device: cuBLAS got a matrix that is not inside one allocation\n");
            free(x);
            return cudaErrorIllegalAddress;
        }
        for (size_t vector = 0; vector < (size_t) n; vector++) {
            for (int done = 0; done < m; done++) {
                const int    i  = system->lower ? done : m - 1 - done;
                const size_t at = system->right ? (size_t) i * ldb + vector : vector * ldb + (size_t) i;
                double       sum = product->alpha * get(b, CUDA_R_32F, at);
                for (int k = 0; k < done; k++) {
                    const int    j       = system->lower ? k : m - 1 - k;
                    const size_t element = system->flipped ? (size_t) i * lda + (size_t) j : (size_t) j * lda + (size_t) i;
                    sum -= get(a, CUDA_R_32F, element) * x[j];
                }
                x[i] = system->unit ? sum : sum / get(a, CUDA_R_32F, (size_t) i * lda + (size_t) i);
                put(b, CUDA_R_32F, at, x[i]);
            }
        }
    }
    free(x);
    return cudaSuccess;
}

cublasStatus_t cublasStrsmBatched(cublasHandle_t handle, cublasSideMode_t side, cublasFillMode_t fill, cublasOperation_t transpose,
                                  cublasDiagType_t diagonal, int m, int n, const float * alpha, const float * const a[], int lda,
                                  float * const b[], int ldb, int count) {
    if (handle == NULL) {
        simulated_count(REFUSED, 1);
        return CUBLAS_STATUS_NOT_INITIALIZED;
    }
    const bool    right = side == CUBLAS_SIDE_RIGHT, flipped = (transpose != CUBLAS_OP_N) != right;
    struct system system = {
        .product = {.m = right ? n : m, .n = right ? m : n, .count = count, .alpha = *alpha, .by_pointers = true,
                    .a = {a, CUDA_R_32F, lda, 0}, .c = {b, CUDA_R_32F, ldb, 0}},
        .flipped = flipped,
        .lower   = (fill == CUBLAS_FILL_MODE_LOWER) != flipped,
        .unit    = diagonal == CUBLAS_DIAG_UNIT,
        .right   = right,
    };
    simulated_count(CUBLAS_CALLS, 1);
    return work_do(handle->stream, work_of(solve, &system, sizeof system)) == 0 ? CUBLAS_STATUS_SUCCESS :
                                                                               CUBLAS_STATUS_EXECUTION_FAILED;
}
