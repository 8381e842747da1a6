// Switches between coroutines: by hand on x86-64 and aarch64, with ucontext elsewhere (it asks the kernel for the signal mask
// each time).
#ifndef PTX_SWITCH_H
#define PTX_SWITCH_H

#include <stdint.h>

#if (defined(__x86_64__) || defined(__aarch64__)) && !defined(PTX_UCONTEXT)

struct ptx_context {
    void * stack;
};

// Keep this context and go on with the other one. The registers that a function must keep are on the stack.
void ptx_switch_stacks(void ** from, void * to) __attribute__((visibility("hidden")));

#if defined(__x86_64__)

enum { PTX_SAVED = 8, PTX_RETURN = 6 };  // words on the stack; the place of the return address among them

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

#else  // the numbers are those of the procedure call standard: x19 to x30, d8 to d15

enum { PTX_SAVED = 20, PTX_RETURN = 11 };

__asm__(
    ".text\n"
    ".hidden ptx_switch_stacks\n"
    ".globl ptx_switch_stacks\n"
    ".type ptx_switch_stacks,%function\n"
    "ptx_switch_stacks:\n"
    "sub sp, sp, #160\n"
    "stp x19, x20, [sp]\n"
    "stp x21, x22, [sp, #16]\n"
    "stp x23, x24, [sp, #32]\n"
    "stp x25, x26, [sp, #48]\n"
    "stp x27, x28, [sp, #64]\n"
    "stp x29, x30, [sp, #80]\n"
    "stp d8, d9, [sp, #96]\n"
    "stp d10, d11, [sp, #112]\n"
    "stp d12, d13, [sp, #128]\n"
    "stp d14, d15, [sp, #144]\n"
    "mov x9, sp\n"
    "str x9, [x0]\n"
    "mov sp, x1\n"
    "ldp x19, x20, [sp]\n"
    "ldp x21, x22, [sp, #16]\n"
    "ldp x23, x24, [sp, #32]\n"
    "ldp x25, x26, [sp, #48]\n"
    "ldp x27, x28, [sp, #64]\n"
    "ldp x29, x30, [sp, #80]\n"
    "ldp d8, d9, [sp, #96]\n"
    "ldp d10, d11, [sp, #112]\n"
    "ldp d12, d13, [sp, #128]\n"
    "ldp d14, d15, [sp, #144]\n"
    "add sp, sp, #160\n"
    "ret\n"
    ".size ptx_switch_stacks,.-ptx_switch_stacks\n");

#endif

static inline void ptx_switch(struct ptx_context * from, const struct ptx_context * to) {
    ptx_switch_stacks(&from->stack, to->stack);
}

// A context that calls `function`, which must not return, on the stack between `bottom` and `top`.
static inline void ptx_prepare(struct ptx_context * context, void * bottom, void * top, void (*function)(void)) {
    (void) bottom;
    uintptr_t * stack = (uintptr_t *) ((uintptr_t) top & ~(uintptr_t) 63) - PTX_SAVED;
    for (int i = 0; i < PTX_SAVED; i++) {
        stack[i] = 0;
    }
    stack[PTX_RETURN] = (uintptr_t) function;  // on x86-64 it finds its stack as after a call: a 0 is above it
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
