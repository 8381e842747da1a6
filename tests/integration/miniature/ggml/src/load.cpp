// Loads of each kind the module with the best score, in ggml's way on Windows.
#include "export.h"

#include <cstring>
#include <vector>

extern "C" {

void ggml_say(const char * text);

struct found_file {
    unsigned       attributes, times[6], size[2], reserved[2];
    wchar_t        name[260], short_name[14];
    unsigned short padding[4];
};
__declspec(dllimport) void * FindFirstFileW(const wchar_t *, found_file *);
__declspec(dllimport) int    FindNextFileW(void *, found_file *);
__declspec(dllimport) int    FindClose(void *);
__declspec(dllimport) void * LoadLibraryW(const wchar_t *);
__declspec(dllimport) void * GetProcAddress(void *, const char *);
__declspec(dllimport) int    FreeLibrary(void *);
__declspec(dllimport) int    MultiByteToWideChar(unsigned, unsigned, const char *, int, wchar_t *, int);

static std::vector<void *> & backends() {
    static std::vector<void *> & all = *new std::vector<void *>();
    return all;
}

static void append(wchar_t * path, const wchar_t * text) {
    while (*path) {
        path++;
    }
    while ((*path++ = *text++) != 0) {
    }
}

static void load_best(const wchar_t * folder, const wchar_t * pattern) {
    wchar_t    path[1024] = L"";
    found_file file;
    void *     best = nullptr;
    int        best_score = 0;
    append(path, folder);
    append(path, pattern);
    void * search = FindFirstFileW(path, &file);
    for (int more = search != (void *) -1; more; more = FindNextFileW(search, &file)) {
        path[0] = 0;
        append(path, folder);
        append(path, L"\\");
        append(path, file.name);
        void * module = LoadLibraryW(path);
        auto   score  = module ? (int (*)()) GetProcAddress(module, "ggml_backend_score") : nullptr;
        const int  fit = score ? score() : 0;
        if (fit > best_score) {
            best_score = fit;
            best       = module;
        } else if (module) {
            FreeLibrary(module);
        }
    }
    if (search != (void *) -1) {
        FindClose(search);
    }
    if (best) {
        ggml_say("load_backend: loaded a module of the miniature\n");
        backends().push_back(((void * (*) ()) GetProcAddress(best, "ggml_backend_init"))());
    }
}

EXPORTED void ggml_backend_load_all_from_path(const char * folder) {
    wchar_t wide[1024];
    MultiByteToWideChar(65001, 0, folder, -1, wide, 1024);
    load_best(wide, L"\\ggml-cuda-*.dll");
    load_best(wide, L"\\ggml-cpu-*.dll");
}

EXPORTED size_t ggml_backend_reg_count() {
    return backends().size();
}

EXPORTED void * ggml_backend_reg_get(size_t index) {
    return backends()[index];
}

}  // extern "C"
