#include "export.h"

extern "C" const char * ggml_registry_file();
extern "C" EXPORTED const char * llama_file() { return ggml_registry_file(); }
