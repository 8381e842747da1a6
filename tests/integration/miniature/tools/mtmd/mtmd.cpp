extern "C" const char * llama_file();
extern "C" const char * mtmd_file() { return llama_file(); }
