// Arithmetic in f16 and bf16, alone and in pairs: PTX ISA 9.0, 9.7.4 and 9.7.7. Each operation rounds once.
//
// A sum or product of two f16 or bf16 numbers, rounded to f32 and then to the type, is as if it were rounded once: f32
// has more than twice the bits. For fma, and for products of bf16 (which can be subnormal in f32), it is not: these are
// rounded to odd first (ptx_to_odd).
#ifndef PTX_HALF_H
#define PTX_HALF_H

#include "ptx_float.h"

#define PTX_NAN_16 0x7fffu

PTX_PURE float ptx_half(uint16_t bits) {
    _Float16 value;
    memcpy(&value, &bits, sizeof value);
    return (float) value;
}
PTX_PURE uint16_t ptx_to_half(float value) {
    const _Float16 half = (_Float16) value;
    uint16_t       bits;
    memcpy(&bits, &half, sizeof bits);
    return isnan(value) ? PTX_NAN_16 : bits;
}
PTX_PURE float    ptx_brain(uint16_t bits) { return ptx_f32((uint32_t) bits << 16); }
PTX_PURE uint16_t ptx_to_brain(float value) {
    const uint32_t bits = ptx_bits(value);
    return isnan(value) ? PTX_NAN_16 : (uint16_t) ((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
PTX_PURE uint16_t ptx_double_to_half(double value) { return ptx_to_half(ptx_to_odd(value, 0)); }
PTX_PURE uint16_t ptx_flushed_half(uint16_t bits) { return bits & 0x7c00 ? bits : bits & 0x8000; }
PTX_PURE uint16_t ptx_half_sat(uint16_t bits) {
    const float value = ptx_half(bits);
    return value > 0 ? (value < 1 ? bits : 0x3c00) : 0;
}
PTX_PURE uint16_t ptx_relu_16(uint16_t bits) { return bits & 0x8000 ? 0 : bits; }  // a NaN is positive here
PTX_PURE uint32_t ptx_pair(uint16_t low, uint16_t high) { return low | (uint32_t) high << 16; }

PTX_PURE uint16_t ptx_fma_half(float x, float y, float z) { return ptx_double_to_half((double) x * y + z); }
PTX_PURE uint16_t ptx_fma_brain(float x, float y, float z) {
    const double product = (double) x * y;
    return ptx_to_brain(ptx_to_odd(product + z, ptx_lost(product, z)));
}
PTX_PURE uint16_t ptx_mul_brain(float x, float y) { return ptx_to_brain(ptx_to_odd((double) x * y, 0)); }

#define PTX_16_ONE uint16_t a
#define PTX_16_TWO uint16_t a, uint16_t b
#define PTX_16_THREE uint16_t a, uint16_t b, uint16_t c
#define PTX_TAKE_16_ONE(in) const float x = in(a);
#define PTX_TAKE_16_TWO(in) const float x = in(a), y = in(b);
#define PTX_TAKE_16_THREE(in) const float x = in(a), y = in(b), z = in(c);
#define PTX_BOTH_ONE(name) ptx_pair(name((uint16_t) a), name((uint16_t) (a >> 16)))
#define PTX_BOTH_TWO(name) ptx_pair(name((uint16_t) a, (uint16_t) b), name((uint16_t) (a >> 16), (uint16_t) (b >> 16)))
#define PTX_BOTH_THREE(name)                                                                                           \
    ptx_pair(name((uint16_t) a, (uint16_t) b, (uint16_t) c),                                                           \
             name((uint16_t) (a >> 16), (uint16_t) (b >> 16), (uint16_t) (c >> 16)))
// An operation on one number, and the same on a vector of two.
#define PTX_PAIRED(name, T, count)                                                                                     \
    PTX_PURE uint32_t ptx_##name##_##T##x2(PTX_##count) { return PTX_BOTH_##count(ptx_##name##_##T); }
#define PTX_16(name, T, count, in, out, expression)                                                                    \
    PTX_PURE uint16_t ptx_##name##_##T(PTX_16_##count) {                                                               \
        PTX_TAKE_16_##count(in) return out(expression);                                                                \
    }                                                                                                                  \
    PTX_PAIRED(name, T, count)

PTX_PURE float    ptx_half_ftz(uint16_t bits) { return ptx_half(ptx_flushed_half(bits)); }
PTX_PURE uint16_t ptx_half_ftz_sat(uint16_t bits) { return ptx_flushed_half(ptx_half_sat(bits)); }
PTX_PURE uint16_t ptx_half_ftz_relu(uint16_t bits) { return ptx_flushed_half(ptx_relu_16(bits)); }
#define PTX_HALF_SAT(name, count, expression)                                                                          \
    PTX_16(name, f16, count, ptx_half, PTX_SAME, expression)                                                           \
    PTX_16(name##_ftz, f16, count, ptx_half_ftz, ptx_flushed_half, expression)                                         \
    PTX_16(name##_sat, f16, count, ptx_half, ptx_half_sat, expression)                                                 \
    PTX_16(name##_ftz_sat, f16, count, ptx_half_ftz, ptx_half_ftz_sat, expression)

PTX_HALF_SAT(add, TWO, ptx_to_half(x + y))
PTX_HALF_SAT(sub, TWO, ptx_to_half(x - y))
PTX_HALF_SAT(mul, TWO, ptx_to_half(x *y))
PTX_HALF_SAT(fma, THREE, ptx_fma_half(x, y, z))
PTX_16(fma_relu, f16, THREE, ptx_half, ptx_relu_16, ptx_fma_half(x, y, z))
PTX_16(fma_ftz_relu, f16, THREE, ptx_half_ftz, ptx_half_ftz_relu, ptx_fma_half(x, y, z))
PTX_16(ex2, f16, ONE, ptx_half, ptx_to_half, exp2f(x))
PTX_16(tanh, f16, ONE, ptx_half, ptx_to_half, tanhf(x))
PTX_16(neg, f16, ONE, ptx_half, ptx_to_half, -x)
PTX_16(abs, f16, ONE, ptx_half, ptx_to_half, fabsf(x))
PTX_16(neg_ftz, f16, ONE, ptx_half_ftz, ptx_to_half, -x)
PTX_16(abs_ftz, f16, ONE, ptx_half_ftz, ptx_to_half, fabsf(x))

PTX_PURE float ptx_brain_ftz(uint16_t bits) { return ptx_f32_ftz((uint32_t) bits << 16); }
PTX_PURE uint16_t ptx_to_brain_ftz(float value) { return ptx_to_brain(ptx_f32_ftz(ptx_bits(value))); }
PTX_16(add, bf16, TWO, ptx_brain, ptx_to_brain, x + y)
PTX_16(sub, bf16, TWO, ptx_brain, ptx_to_brain, x - y)
PTX_16(mul, bf16, TWO, ptx_brain, PTX_SAME, ptx_mul_brain(x, y))
PTX_16(fma, bf16, THREE, ptx_brain, PTX_SAME, ptx_fma_brain(x, y, z))
PTX_16(fma_relu, bf16, THREE, ptx_brain, ptx_relu_16, ptx_fma_brain(x, y, z))
PTX_16(ex2_ftz, bf16, ONE, ptx_brain_ftz, ptx_to_brain_ftz, exp2f(x))
PTX_16(tanh, bf16, ONE, ptx_brain, ptx_to_brain, tanhf(x))
PTX_16(neg, bf16, ONE, ptx_brain, ptx_to_brain, -x)
PTX_16(abs, bf16, ONE, ptx_brain, ptx_to_brain, fabsf(x))

#define PTX_16_EXTREMES(flags, T, value, input, keep_nan)                                                              \
    PTX_EXTREMES(flags, T, 16, value, input, PTX_NAN_16, keep_nan)                                                     \
    PTX_PAIRED(min##flags, T, TWO) PTX_PAIRED(max##flags, T, TWO)
PTX_16_EXTREMES(, f16, ptx_half, PTX_SAME, false)
PTX_16_EXTREMES(_ftz, f16, ptx_half, ptx_flushed_half, false)
PTX_16_EXTREMES(_NaN, f16, ptx_half, PTX_SAME, true)
PTX_16_EXTREMES(_ftz_NaN, f16, ptx_half, ptx_flushed_half, true)
PTX_16_EXTREMES(, bf16, ptx_brain, PTX_SAME, false)
PTX_16_EXTREMES(_NaN, bf16, ptx_brain, PTX_SAME, true)

PTX_COMPARE(f16, 16, ptx_half) PTX_COMPARE(ftz_f16, 16, ptx_half_ftz) PTX_COMPARE(bf16, 16, ptx_brain)

#endif
