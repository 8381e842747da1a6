// How well this shard fits the visible CUDA devices, asked by ggml before it loads a backend.
//
// 0 means that the shard cannot run here. ggml-cuda registers every visible device and cannot leave one out, so a single
// device without code in this shard makes the whole shard unfit: the first kernel on it would fail with "no kernel image
// is available for execution on the device". Among shards that can run, the nearest machine code wins, and any machine
// code wins over PTX.
//
// https://docs.nvidia.com/cuda/cuda-c-programming-guide/#binary-compatibility

#include "shard_archs.h"

#include "ggml-backend-impl.h"

#include <cuda_runtime_api.h>

namespace {

constexpr int MACHINE_CODE = 2000;
constexpr int PTX          = 1000;

// Fit of one entry to a device of compute capability `device` (ten times major plus minor); 0 if it cannot run there.
int fit(const shard_arch & arch, int device) {
    const int  newer       = device - arch.number;
    const bool same_major  = device / 10 == arch.number / 10;
    const bool only_itself = arch.suffix == 'a';
    const bool only_family = arch.suffix == 'f' || !arch.ptx;
    if (newer < 0 || (only_itself && newer != 0) || (only_family && !same_major)) {
        return 0;
    }
    return (arch.ptx ? PTX : MACHINE_CODE) - newer;
}

int shard_score() {
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess) {
        (void) cudaGetLastError();  // leave no error behind for whoever uses the runtime next
        return 0;
    }
    int worst = 0;
    for (int id = 0; id < count; id++) {
        int major = 0;
        int minor = 0;
        if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, id) != cudaSuccess ||
            cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, id) != cudaSuccess) {
            (void) cudaGetLastError();
            return 0;
        }
        int best = 0;
        for (const shard_arch & arch : SHARD_ARCHS) {
            const int here = fit(arch, 10 * major + minor);
            best           = here > best ? here : best;
        }
        if (best == 0) {
            return 0;
        }
        worst = worst == 0 || best < worst ? best : worst;
    }
    return worst;
}

}  // namespace

GGML_BACKEND_DL_SCORE_IMPL(shard_score)
