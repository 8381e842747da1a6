#include "export.h"

EXPORTED const char * ggml_base_file(void) {
    return __FILE__;
}
