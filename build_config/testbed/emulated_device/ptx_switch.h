// Switches between coroutines: by hand on x86-64, with ucontext elsewhere (it asks the kernel for the signal mask each time).
#ifndef PTX_SWITCH_H
#define PTX_SWITCH_H

#include <stdint.h>

#if defined(__x86_64__) && !defined(PTX_UCONTEXT)

struct ptx_context {
    void * stack;
};

// Keep this context and go on with the other one. The registers that a function must keep are on the stack.
void ptx_switch_stacks(void ** from, void * to) __attribute__((visibility("hidden")));
__asm__(
    ".text\n"
    ".hidden ptx_switch_stacks\n"
    ".globl ptx_switch_stacks\n"
    ".type ptx_switch_stacks,@function\n"
    "ptx_switch_stacks:\n"
    "push %rbp\n"
    "push %rbx\n"
    "push %r12\n"
    "push %r13\n"
    "push %r14\n"
    "push %r15\n"
    "mov %rsp,(%rdi)\n"
    "mov %rsi,%rsp\n"
    "pop %r15\n"
    "pop %r14\n"
    "pop %r13\n"
    "pop %r12\n"
    "pop %rbx\n"
    "pop %rbp\n"
    "ret\n"
    ".size ptx_switch_stacks,.-ptx_switch_stacks\n");

static inline void ptx_switch(struct ptx_context * from, const struct ptx_context * to) {
    ptx_switch_stacks(&from->stack, to->stack);
}

// A context that calls `function`, which must not return, on the stack between `bottom` and `top`.
static inline void ptx_prepare(struct ptx_context * context, void * bottom, void * top, void (*function)(void)) {
    (void) bottom;
    uintptr_t * stack = (uintptr_t *) ((uintptr_t) top & ~(uintptr_t) 63);
    *--stack          = 0;  // where the function would return to; it finds its stack as after a call
    *--stack          = (uintptr_t) function;
    for (int i = 0; i < 6; i++) {
        *--stack = 0;
    }
    context->stack = stack;
}

#else

#include <stddef.h>
#include <ucontext.h>

struct ptx_context {
    ucontext_t context;
};

static inline void ptx_switch(struct ptx_context * from, const struct ptx_context * to) {
    swapcontext(&from->context, &to->context);
}

static inline void ptx_prepare(struct ptx_context * context, void * bottom, void * top, void (*function)(void)) {
    getcontext(&context->context);
    context->context.uc_stack.ss_sp   = bottom;
    context->context.uc_stack.ss_size = (size_t) ((char *) top - (char *) bottom);
    context->context.uc_link          = NULL;
    makecontext(&context->context, function, 0);
}

#endif

#endif
