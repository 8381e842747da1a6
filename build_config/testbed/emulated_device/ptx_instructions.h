// What translated kernels call: arithmetic (ptx_convert.h and what it includes), memory, atomics.
#ifndef PTX_INSTRUCTIONS_H
#define PTX_INSTRUCTIONS_H

#include "ptx_convert.h"
#include "ptx_runtime.h"

_Noreturn static inline void ptx_trap(struct ptx_thread * thread, const char * reason) {
    thread->runtime->trap(thread, reason);
    __builtin_unreachable();
}
static inline __attribute__((unused)) void ptx_pause(struct ptx_thread * thread) { thread->runtime->pause(thread); }

// The pointer for an access of `size` bytes, which must be aligned to its size (9.7.9.8). In shared memory it must be
// within the variables of the kernel and the dynamic memory of the launch.
#define PTX_ACCESS static inline __attribute__((always_inline, unused)) void *
PTX_ACCESS ptx_aligned(struct ptx_thread * thread, uint64_t address, uint32_t size) {
    if (__builtin_expect((address & (size - 1)) != 0, 0)) ptx_trap(thread, "misaligned address");
    return (void *) (uintptr_t) address;
}
PTX_ACCESS ptx_generic(struct ptx_thread * thread, uint64_t address, uint32_t size) { return ptx_aligned(thread, address, size); }
PTX_ACCESS ptx_global(struct ptx_thread * thread, uint64_t address, uint32_t size) { return ptx_aligned(thread, address, size); }
PTX_ACCESS ptx_const(struct ptx_thread * thread, uint64_t address, uint32_t size) { return ptx_aligned(thread, address, size); }
PTX_ACCESS ptx_local(struct ptx_thread * thread, uint64_t address, uint32_t size) { return ptx_aligned(thread, address, size); }
PTX_ACCESS ptx_param(struct ptx_thread * thread, uint64_t address, uint32_t size) {
    (void) thread, (void) size;
    return (void *) (uintptr_t) address;
}
PTX_ACCESS ptx_shared(struct ptx_thread * thread, uint64_t address, uint32_t size) {
    const uint64_t offset = address - thread->block->shared;
    const uint64_t limit = (uint64_t) ptx_static_shared + thread->block->dynamic_shared;
    if (__builtin_expect(offset + size > limit || offset > limit, 0)) ptx_trap(thread, "access outside of shared memory");
    return ptx_aligned(thread, address, size);
}
// The row that a lane gives to ldmatrix: those of the first 8 lanes for each matrix, the others are not read.
PTX_ACCESS ptx_row(struct ptx_thread * thread, uint64_t address, uint32_t matrices) {
    return thread->lane < 8 * matrices ? ptx_shared(thread, address, 16) : NULL;
}
static inline __attribute__((unused)) bool ptx_is_shared(struct ptx_thread * thread, uint64_t address) {
    return address - thread->block->shared < (uint64_t) ptx_static_shared + thread->block->dynamic_shared;
}

// Atomics (9.7.13.5, 9.7.13.7): of the process, since blocks run on several cores. They return the old value.
#define PTX_ATOMIC static inline __attribute__((unused))
#define PTX_ATOM(name, T, bits, updated)                                                                               \
    PTX_ATOMIC uint##bits##_t ptx_atom_##name##_##T(void * pointer, uint##bits##_t b) {                                \
        uint##bits##_t a = __atomic_load_n((uint##bits##_t *) pointer, __ATOMIC_RELAXED);                              \
        while (!__atomic_compare_exchange_n((uint##bits##_t *) pointer, &a, (updated), false, __ATOMIC_SEQ_CST,        \
                                            __ATOMIC_RELAXED)) {}                                                      \
        return a;                                                                                                      \
    }
#define PTX_ATOM_INTEGER(T, bits)                                                                                      \
    PTX_ATOM(add, T, bits, a + b) PTX_ATOM(min, T, bits, ptx_min_##T(a, b)) PTX_ATOM(max, T, bits, ptx_max_##T(a, b))
PTX_ATOM_INTEGER(u32, 32) PTX_ATOM_INTEGER(s32, 32) PTX_ATOM_INTEGER(u64, 64) PTX_ATOM_INTEGER(s64, 64)
#define PTX_ATOM_BITS(bits)                                                                                            \
    PTX_ATOM(and, b##bits, bits, a & b) PTX_ATOM(or, b##bits, bits, a | b) PTX_ATOM(xor, b##bits, bits, a ^ b)         \
    PTX_ATOM(exch, b##bits, bits, b)                                                                                   \
    PTX_ATOMIC uint##bits##_t ptx_atom_cas_b##bits(void * pointer, uint##bits##_t b, uint##bits##_t c) {               \
        __atomic_compare_exchange_n((uint##bits##_t *) pointer, &b, c, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);     \
        return b;                                                                                                      \
    }
PTX_ATOM_BITS(32) PTX_ATOM_BITS(64)
PTX_ATOM(inc, u32, 32, a >= b ? 0 : a + 1)
PTX_ATOM(dec, u32, 32, a == 0 || a > b ? b : a - 1)
PTX_ATOM(add, f32, 32, ptx_add_f32(a, b))
PTX_ATOM(add, f64, 64, ptx_add_f64(a, b))
PTX_ATOM(add, f16, 16, ptx_add_f16(a, b))
PTX_ATOM(add, bf16, 16, ptx_add_bf16(a, b))
PTX_ATOM(add, f16x2, 32, ptx_add_f16x2(a, b))
PTX_ATOM(add, bf16x2, 32, ptx_add_bf16x2(a, b))

#endif
