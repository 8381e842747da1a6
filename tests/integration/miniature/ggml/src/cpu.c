#include "export.h"

#ifdef _MSC_VER
#    pragma comment(lib, "vcomp")  // as with cl's /openmp
__declspec(dllimport) int omp_get_max_threads(void);
EXPORTED int threads(void) { return omp_get_max_threads(); }
#endif

#ifdef _WIN32
// What a backend of ggml exports, for log.c and load.cpp.
static struct { const char * name; unsigned long long devices; } cpu = { "CPU", 1 };
EXPORTED int ggml_backend_score(void) { return 1; }
EXPORTED void * ggml_backend_init(void) { return &cpu; }
#endif

void scale(float * x, float by, int n);

void scale(float * x, float by, int n) {
    for (int i = 0; i < n; i++) {
        x[i] *= by;
    }
}
