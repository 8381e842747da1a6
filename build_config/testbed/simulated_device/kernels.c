// The kernels of the simulated GPU: they do nothing.
#include "simulated.h"

int simulated_prepare(const struct simulated_launch * launch, struct simulated_work * work) {
    (void) launch;
    (void) work;
    return 0;
}
