// Declarations that the two sources of a shard share.
#pragma once

#include <vector>

#ifdef __GNUC__
#    pragma GCC visibility push(hidden)
#endif

// How well the code in this shard fits a device of a compute capability (ten times major plus minor); 0 if it cannot run
// there.
int shard_fit(int capability);

// The compute capability of a device of this process; 0 if CUDA does not tell. `device` is CUDA's own number.
int device_capability(int device);

// CUDA's own numbers of the devices that this shard has code for. ggml-cuda sees these only, numbered from 0.
const std::vector<int> & shown_devices();

#ifdef __GNUC__
#    pragma GCC visibility pop
#endif
