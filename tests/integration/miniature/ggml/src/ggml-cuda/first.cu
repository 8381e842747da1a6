#include <cstdio>

// Names of internal linkage: their device symbols carry nvcc's seed.
namespace {

struct first_op {
    __device__ float operator()(float x) const { return x * 2.0f; }
};

template <typename Op> __global__ void apply(float * x, int n, Op op) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        x[i] = op(x[i]);
    } else {
        printf("%s\n", __FILE__);
    }
}

}  // namespace

extern "C" void first_launch(float * x, int n) {
    apply<<<1, 32>>>(x, n, first_op{});
}

#ifdef _WIN32
extern "C" __declspec(dllexport) void * ggml_backend_init() {
    static struct { const char * name; unsigned long long devices; } cuda = { "CUDA", 1 };
    return &cuda;
}
#endif
