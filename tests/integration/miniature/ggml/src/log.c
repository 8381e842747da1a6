// The functions of ggml's base that the loader of the wheel calls.
#include "export.h"

typedef void (*callback)(int level, const char * text, void * data);
struct reg { const char * name; unsigned long long devices; };

static void say_nothing(int level, const char * text, void * data) { (void) level; (void) text; (void) data; }

static callback current = say_nothing;
static void *   current_data;

EXPORTED void ggml_log_get(callback * called, void ** data) { *called = current; *data = current_data; }
EXPORTED void ggml_log_set(callback called, void * data) { current = called ? called : say_nothing; current_data = data; }
EXPORTED void ggml_say(const char * text) { current(2, text, current_data); }
EXPORTED const char * ggml_backend_reg_name(struct reg * backend) { return backend->name; }
EXPORTED unsigned long long ggml_backend_reg_dev_count(struct reg * backend) { return backend->devices; }
