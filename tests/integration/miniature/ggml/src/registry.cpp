extern "C" const char * ggml_base_file(void);

extern "C" const char * ggml_registry_file() {
    return ggml_base_file();
}
