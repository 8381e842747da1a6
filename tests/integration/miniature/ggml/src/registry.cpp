#include "export.h"

extern "C" const char * ggml_base_file(void);

extern "C" EXPORTED const char * ggml_registry_file() {
    return ggml_base_file();
}
