#include "export.h"

extern "C" const char * llama_file();
extern "C" EXPORTED const char * mtmd_file() { return llama_file(); }
