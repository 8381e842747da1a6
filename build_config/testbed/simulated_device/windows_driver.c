// What NVIDIA's import libraries of CUDA 13 ask nvcuda.dll for: cuda.lib for functions by name, cudart.lib for a table
// that loads the runtime which comes with the driver. See README.md.
#include <cuda.h>

#include <stdio.h>
#include <string.h>
#include <windows.h>

CUresult cuGetProcAddress_v2(
    const char * name, void ** function, int version, cuuint64_t flags, CUdriverProcAddressQueryResult * result);
// The older function has no last argument. cudart.lib passes one even so.
CUresult cuGetProcAddress_v1(const char * name, void ** function, int version, cuuint64_t flags);

static HMODULE own_module(void) {
    HMODULE module = NULL;
    GetModuleHandleExA(GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT,
                       (const char *) &own_module, &module);
    return module;
}

CUresult cuGetProcAddress_v2(
    const char * name, void ** function, int version, cuuint64_t flags, CUdriverProcAddressQueryResult * result) {
    (void) version;
    (void) flags;
    char newer[128];
    snprintf(newer, sizeof newer, "%s_v2", name);
    *function = (void *) GetProcAddress(own_module(), newer);
    if (*function == NULL) {
        *function = (void *) GetProcAddress(own_module(), name);
    }
    if (result != NULL) {
        *result = *function != NULL ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    }
    return *function != NULL ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

CUresult cuGetProcAddress_v1(const char * name, void ** function, int version, cuuint64_t flags) {
    return cuGetProcAddress_v2(name, function, version, flags, NULL);
}

// Load a library from the folder of this one, and find its function that returns all others.
static int load(const char * name, void ** function, void ** library) {
    char         path[32768];
    const size_t length = GetModuleFileNameA(own_module(), path, sizeof path);
    char *       file   = length < sizeof path ? strrchr(path, '\\') : NULL;
    *function           = NULL;
    if (file == NULL || (size_t) (file + 1 - path) + strlen(name) >= sizeof path) {
        return CUDA_ERROR_SHARED_OBJECT_INIT_FAILED;
    }
    strcpy(file + 1, name);
    *library = LoadLibraryExA(path, NULL, LOAD_WITH_ALTERED_SEARCH_PATH);
    if (*library != NULL) {
        *function = (void *) GetProcAddress((HMODULE) *library, "__cudaGetProcAddress");
    }
    return *function != NULL ? CUDA_SUCCESS : CUDA_ERROR_SHARED_OBJECT_INIT_FAILED;
}

static void unload(void * library) {
    FreeLibrary((HMODULE) library);
}

struct driver_loader {
    size_t size;
    int (*load)(const char * name, void ** function, void ** library);
    void (*unload)(void * library);
};

static const struct driver_loader DRIVER_LOADER = {sizeof DRIVER_LOADER, load, unload};
// CU_ETID_DriverLoader in cudart.lib.
static const unsigned char DRIVER_LOADER_ID[16] = {
    0xdd, 0x9e, 0x98, 0xa4, 0xf4, 0x10, 0x48, 0x44, 0x99, 0xb0, 0xe2, 0xae, 0xb7, 0xb4, 0x32, 0xb5,
};

CUresult cuGetExportTable(const void ** table, const CUuuid * id) {
    const int known = memcmp(id, DRIVER_LOADER_ID, sizeof DRIVER_LOADER_ID) == 0;
    *table           = known ? &DRIVER_LOADER : NULL;
    return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
