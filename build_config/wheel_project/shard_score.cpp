// How well this shard fits the machine, asked by ggml before it loads a backend.
//
// 0 means that no device has code in this shard. Among shards that can run, the one whose devices have the most memory
// wins, in whole GiB. With equal memory the nearest machine code wins, and any machine code wins over PTX; of several
// devices the one with the worst fit counts. Then the newest device decides, so that the choice does not depend on the
// order of the files.
//
// https://docs.nvidia.com/cuda/cuda-c-programming-guide/#binary-compatibility

#include "shard.h"
#include "shard_archs.h"

#include "ggml-backend-impl.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <climits>
#include <cstdint>

namespace {

constexpr int MACHINE_CODE = 500;
constexpr int PTX          = 250;

// The parts of a score, from the least: newest device (< 256), fit (< 512), GiB.
constexpr int     FITS     = 512;
constexpr int     NEWEST   = 256;
constexpr int64_t GIBIBYTE = int64_t(1) << 30;

// Fit of one entry to a device.
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
    int64_t memory = 0;
    int     worst  = MACHINE_CODE;
    int     newest = 0;
    for (size_t id = 0; id < shown_devices().size(); id++) {
        cudaDeviceProp properties;
        if (cudaGetDeviceProperties(&properties, (int) id) != cudaSuccess) {
            (void) cudaGetLastError();  // leave no error behind for whoever uses the runtime next
            return 0;
        }
        memory += (int64_t) properties.totalGlobalMem;
        const int capability = 10 * properties.major + properties.minor;
        worst                = std::min(worst, shard_fit(capability));
        newest               = std::max(newest, capability);
    }
    if (shown_devices().empty()) {
        return 0;
    }
    return (int) std::min<int64_t>((memory / GIBIBYTE * FITS + worst) * NEWEST + newest, INT_MAX);
}

}  // namespace

int shard_fit(int capability) {
    int best = 0;
    for (const shard_arch & arch : SHARD_ARCHS) {
        best = std::max(best, fit(arch, capability));
    }
    return best;
}

GGML_BACKEND_DL_SCORE_IMPL(shard_score)
