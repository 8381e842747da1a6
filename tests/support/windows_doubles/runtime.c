/*
 * The part of Visual C++'s runtime that is linked into every program and DLL: its entry, constructors, destructors, and
 * the guard of the stack. The rest comes from DLLs: Windows' own ucrtbase.dll and Microsoft's vcruntime140.dll.
 */
#pragma comment(lib, "kernel32")
#pragma comment(lib, "msvcprt")
#pragma comment(lib, "ucrt")
#pragma comment(lib, "vcruntime")

#ifdef PROGRAM

void exit(int);
int main(void);

void mainCRTStartup(void) {
    exit(main());
}

#else

typedef void (*function)(void);
typedef struct { function *first, *last, *end; } table;

int                _fltused = 0x9875;
unsigned long long __security_cookie = 0x2b992ddfa232ull;

/* The linker sorts what is between these by the name of the section. */
#pragma section(".CRT$XCA", read)
#pragma section(".CRT$XCZ", read)
static __declspec(allocate(".CRT$XCA")) const function first_constructor = 0;
static __declspec(allocate(".CRT$XCZ")) const function last_constructor = 0;

/* Not constants for the compiler, which could compare the addresses of two variables as it likes. */
static const function *volatile constructors = &first_constructor + 1;
static const function *volatile constructors_end = &last_constructor;

static table at_exit;

int _initialize_onexit_table(table *);
int _register_onexit_function(table *, function);
int _execute_onexit_table(table *);

/* C++'s new and delete, by the compiler's names for them. */
void *malloc(unsigned long long);
void free(void *);
void *allocate(unsigned long long size) __asm__("??2@YAPEAX_K@Z");
void release(void *memory, unsigned long long size) __asm__("??3@YAXPEAX_K@Z");

void *allocate(unsigned long long size) {
    return malloc(size);
}

void release(void *memory, unsigned long long size) {
    free(memory);
}

/* Visual C++ has these in its headers. */
void *__acrt_iob_func(unsigned);
int __stdio_common_vfprintf(unsigned long long, void *, const char *, void *, __builtin_va_list);

int printf(const char *format, ...) {
    __builtin_va_list arguments;
    __builtin_va_start(arguments, format);
    return __stdio_common_vfprintf(0, __acrt_iob_func(1), format, 0, arguments);
}

int fprintf(void *file, const char *format, ...) {
    __builtin_va_list arguments;
    __builtin_va_start(arguments, format);
    return __stdio_common_vfprintf(0, file, format, 0, arguments);
}

void __security_check_cookie(unsigned long long cookie) {
    if (cookie != __security_cookie) {
        __fastfail(2);
    }
}

int __GSHandlerCheck(void) {
    return 1;
}

int atexit(function called) {
    return _register_onexit_function(&at_exit, called);
}

static void construct(void) {
    _initialize_onexit_table(&at_exit);
    for (const function *each = constructors; each < constructors_end; each++) {
        if (*each) {
            (*each)();
        }
    }
}

int __stdcall _DllMainCRTStartup(void *module, unsigned reason, void *reserved) {
    enum { DETACH, ATTACH };
    if (reason == ATTACH) {
        construct();
    } else if (reason == DETACH) {
        _execute_onexit_table(&at_exit);
    }
    return 1;
}

#endif
