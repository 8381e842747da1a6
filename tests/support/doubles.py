"""C libraries that replace ggml, the NVIDIA driver and CUDA's libraries.

They simulate each situation of a loader; they compute nothing, so no test shows that anything ran on a GPU.
"""

import subprocess
from pathlib import Path

CARD = "NVIDIA Double 4090"

GGML_BASE = r"""
#include <stdio.h>
#include <stddef.h>
struct reg { const char * name; size_t devices; };
typedef void (*callback)(int, const char *, void *);
static void print(int level, const char * text, void * data) { fputs(text, stderr); }
static callback current = print;
static void * current_data;
void ggml_log_get(callback * c, void ** d) { *c = current; *d = current_data; }
void ggml_log_set(callback c, void * d) { current = c ? c : print; current_data = d; }
void ggml_say(const char * text) { current(2, text, current_data); }
const char * ggml_backend_reg_name(struct reg * r) { return r->name; }
size_t ggml_backend_reg_dev_count(struct reg * r) { return r->devices; }
"""

GGML = r"""
#include <dirent.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stddef.h>
#include <string.h>
void ggml_say(const char *);
static void * regs[8];
static size_t count;
static void load_best(const char * folder, const char * prefix) {
    char path[4096], best[4096] = "";
    int best_score = 0;
    DIR * d = opendir(folder);
    for (struct dirent * e; (e = readdir(d));) {
        if (strncmp(e->d_name, prefix, strlen(prefix))) continue;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        void * h = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        int (*score)(void) = h ? (int (*)(void)) dlsym(h, "ggml_backend_score") : NULL;
        if (score && score() > best_score) { best_score = score(); strcpy(best, path); }
    }
    closedir(d);
    if (best_score) {
        ggml_say("load_backend: loaded a double\n");
        regs[count++] = ((void * (*)(void)) dlsym(dlopen(best, RTLD_NOW | RTLD_LOCAL), "ggml_backend_init"))();
    }
}
void ggml_backend_load_all_from_path(const char * folder) {
    load_best(folder, "libggml-cuda-");
    load_best(folder, "libggml-cpu-");
}
size_t ggml_backend_reg_count(void) { return count; }
void * ggml_backend_reg_get(size_t i) { return regs[i]; }
"""

BACKEND = r"""
#include <stddef.h>
static struct { const char * name; size_t devices; } reg = { NAME, 1 };
#ifdef CUDA
int cuInit(unsigned);
int cuDeviceGetCount(int *);
int ggml_backend_score(void) { int n = 0; return cuInit(0) || cuDeviceGetCount(&n) || !n ? 0 : SCORE; }
#else
int ggml_backend_score(void) { return SCORE; }
#endif
void * ggml_backend_init(void) { return &reg; }
"""

DRIVER = r"""
#include <stdlib.h>
#include <string.h>
static int number(const char * name) { const char * v = getenv(name); return v ? atoi(v) : 0; }
int cuDriverGetVersion(int * v) { *v = number("DOUBLE_CUDA"); return 0; }
int cuInit(unsigned flags) { return number("DOUBLE_INIT"); }
int cuDeviceGetCount(int * n) { *n = number("DOUBLE_CAPABILITY") ? 1 : 0; return *n ? 0 : 100; }
int cuDeviceGet(int * d, int i) { *d = i; return 0; }
int cuDeviceGetName(char * name, int n, int d) { strncpy(name, CARD, n); return 0; }
int cuDeviceGetAttribute(int * v, int a, int d) {
    int c = number("DOUBLE_CAPABILITY");
    *v = a == 75 ? c / 10 : a == 76 ? c % 10 : -1;
    return 0;
}
int cuDeviceTotalMem_v2(size_t * v, int d) { *v = 24ull << 30; return 0; }
"""


def compile_double(target: Path, source: str, *options: str) -> None:
    """Compile ``source`` to a shared library with the name of ``target``; ``options`` follow it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shared = ("gcc", "-shared", "-fPIC", "-w", "-xc", "-", "-o", str(target), f"-Wl,-soname,{target.name}")
    subprocess.run([*shared, "-xnone", *options], input=source, text=True, check=True)


NVML = r"""
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
struct process { unsigned pid; unsigned long long memory; unsigned gpu_instance, compute_instance; };
static int number(const char * name) { const char * v = getenv(name); return v ? atoi(v) : 0; }
int nvmlInit_v2(void) { return number("DOUBLE_NVML"); }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char * v, unsigned n) { strncpy(v, "580.65.06", n); return 0; }
int nvmlDeviceGetCount_v2(unsigned * n) { *n = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void ** d) { *d = (void *) (size_t) (i + 1); return 0; }
int nvmlDeviceGetName(void * d, char * name, unsigned n) { strncpy(name, CARD, n); return 0; }
/* DOUBLE_PROCESSES: PID:BYTES, separated by commas, of the first GPU; -1 for a size that the driver does not tell. */
int nvmlDeviceGetComputeRunningProcesses_v3(void * d, unsigned * count, struct process * p) {
    char all[4096] = "";
    unsigned room = *count, n = 0;
    if (number("DOUBLE_NO_PROCESSES")) return number("DOUBLE_NO_PROCESSES");
    if (d == (void *) 1 && getenv("DOUBLE_PROCESSES")) strncpy(all, getenv("DOUBLE_PROCESSES"), sizeof all - 1);
    for (char * each = strtok(all, ","); each; each = strtok(NULL, ","), n++) {
        long long memory;
        unsigned pid;
        sscanf(each, "%u:%lld", &pid, &memory);
        if (p && n < room) p[n] = (struct process) { pid, (unsigned long long) memory, ~0u, ~0u };
    }
    *count = n;
    return n > room ? 7 : 0;
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(void * d, unsigned * count, struct process * p) { *count = 0; return 0; }
"""
