// Floating-point arithmetic in f32 and f64: PTX ISA 9.0, 9.7.3 and 9.7.6. Registers are the bits of the numbers.
//
// .ftz: subnormal operands and results become zeros of their sign. .sat: the result is clamped to [0, 1], a NaN is 0.
// .approx: computed by the C library, whose errors are below the ISA's bounds. Compiled with -ffp-contract=off.
#ifndef PTX_FLOAT_H
#define PTX_FLOAT_H

#include <float.h>
#include <math.h>
#include <string.h>

#include "ptx_integer.h"

#define PTX_NAN_F32 0x7fffffffu
#define PTX_NAN_F64 0x7fffffffffffffffull

PTX_PURE float ptx_f32(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
PTX_PURE uint32_t ptx_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}
PTX_PURE double ptx_f64(uint64_t bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
PTX_PURE uint64_t ptx_bits64(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}
PTX_PURE uint32_t ptx_flushed(uint32_t bits) { return bits & 0x7f800000u ? bits : bits & 0x80000000u; }
PTX_PURE float ptx_f32_ftz(uint32_t bits) { return ptx_f32(ptx_flushed(bits)); }
PTX_PURE uint32_t ptx_bits_ftz(float value) { return ptx_flushed(ptx_bits(value)); }
PTX_PURE uint32_t ptx_bits_sat(float value) { return value > 0 ? ptx_bits(value < 1 ? value : 1) : 0; }
PTX_PURE uint32_t ptx_bits_ftz_sat(float value) { return ptx_flushed(ptx_bits_sat(value)); }

// value + error, rounded toward zero: error is too small to show in the double, so it only says at which side of value
// the exact number is.
PTX_PURE float ptx_toward_zero(double value, double error) {
    const float nearest = (float) value;
    const double beyond = (double) nearest - value;
    const bool too_far = nearest > 0 ? beyond > error : beyond < error;
    return nearest != 0 && too_far ? nextafterf(nearest, 0) : nearest;
}
// What a + b lacks of the exact sum (Knuth's two-sum).
PTX_PURE double ptx_lost(double a, double b) {
    const double sum = a + b, part = sum - a;
    return (a - (sum - part)) + (b - part);
}
PTX_PURE float ptx_sum_rz(double a, double b) { return ptx_toward_zero(a + b, ptx_lost(a, b)); }
// The same, rounded to odd: it can then be rounded to a type with two bits less as if it were exact.
PTX_PURE float ptx_to_odd(double value, double error) {
    const float truncated = ptx_toward_zero(value, error);
    const bool exact = (double) truncated == value && (error == 0 || isinf(value));
    return exact || isnan(truncated) ? truncated : ptx_f32(ptx_bits(truncated) | 1);
}

// The variants of an operation on f32: without and with .ftz and .sat. x, y, z are the operands as C floats.
#define PTX_FLOAT_VARIANT(name, flush, result, expression, parameters, operands)                                       \
    PTX_PURE uint32_t ptx_##name(parameters) {                                                                         \
        operands(flush) return result(expression);                                                                     \
    }
#define PTX_ONE uint32_t a
#define PTX_TWO uint32_t a, uint32_t b
#define PTX_THREE uint32_t a, uint32_t b, uint32_t c
#define PTX_TAKE_ONE(flush) const float x = flush(a);
#define PTX_TAKE_TWO(flush) const float x = flush(a), y = flush(b);
#define PTX_TAKE_THREE(flush) const float x = flush(a), y = flush(b), z = flush(c);
#define PTX_FLOAT(name, count, expression)                                                                             \
    PTX_FLOAT_VARIANT(name##_f32, ptx_f32, ptx_bits, expression, PTX_##count, PTX_TAKE_##count)                        \
    PTX_FLOAT_VARIANT(name##_ftz_f32, ptx_f32_ftz, ptx_bits_ftz, expression, PTX_##count, PTX_TAKE_##count)
#define PTX_FLOAT_SAT(name, count, expression)                                                                         \
    PTX_FLOAT(name, count, expression)                                                                                 \
    PTX_FLOAT_VARIANT(name##_sat_f32, ptx_f32, ptx_bits_sat, expression, PTX_##count, PTX_TAKE_##count)                \
    PTX_FLOAT_VARIANT(name##_ftz_sat_f32, ptx_f32_ftz, ptx_bits_ftz_sat, expression, PTX_##count, PTX_TAKE_##count)

PTX_FLOAT_SAT(add, TWO, x + y)
PTX_FLOAT_SAT(sub, TWO, x - y)
PTX_FLOAT_SAT(mul, TWO, x * y)
PTX_FLOAT_SAT(fma, THREE, fmaf(x, y, z))
PTX_FLOAT_SAT(add_rz, TWO, ptx_sum_rz(x, y))
PTX_FLOAT_SAT(sub_rz, TWO, ptx_sum_rz(x, -(double) y))
PTX_FLOAT_SAT(mul_rz, TWO, ptx_toward_zero((double) x * y, 0))
PTX_FLOAT_SAT(fma_rz, THREE, ptx_sum_rz((double) x * y, z))
PTX_FLOAT(div, TWO, x / y)
PTX_FLOAT(rcp, ONE, 1 / x)
PTX_FLOAT(sqrt, ONE, sqrtf(x))
PTX_FLOAT(rsqrt, ONE, (float) (1 / sqrt((double) x)))
PTX_FLOAT(sin, ONE, sinf(x))
PTX_FLOAT(cos, ONE, cosf(x))
PTX_FLOAT(lg2, ONE, log2f(x))
PTX_FLOAT(ex2, ONE, exp2f(x))
PTX_FLOAT(abs, ONE, fabsf(x))
PTX_FLOAT(neg, ONE, -x)
PTX_PURE uint32_t ptx_tanh_f32(uint32_t a) { return ptx_bits(tanhf(ptx_f32(a))); }

// div.approx: for |b| from 2^126 on, the quotient is 0, or NaN if a is infinite.
#define PTX_DIVIDE_APPROXIMATELY(name, flush, result)                                                                  \
    PTX_PURE uint32_t ptx_##name(uint32_t a, uint32_t b) {                                                             \
        const float x = flush(a), y = flush(b);                                                                        \
        if (fabsf(y) > 0x1p126f && fabsf(y) < INFINITY) return isinf(x) ? PTX_NAN_F32 : isnan(x) ? a : (a ^ b) & 0x80000000u; \
        return result(x / y);                                                                                          \
    }
PTX_DIVIDE_APPROXIMATELY(div_approx_f32, ptx_f32, ptx_bits)
PTX_DIVIDE_APPROXIMATELY(div_approx_ftz_f32, ptx_f32_ftz, ptx_bits_ftz)

// min, max: +0 is greater than -0. If one operand is NaN the result is the other one, with .NaN it is the canonical NaN.
#define PTX_EXTREME(name, T, bits, to_float, input, output, canonical, first, keep_nan)                                \
    PTX_PURE uint##bits##_t ptx_##name##_##T(uint##bits##_t a, uint##bits##_t b) {                                     \
        const uint##bits##_t p = input(a), q = input(b);                                                               \
        const bool p_nan = to_float(p) != to_float(p), q_nan = to_float(q) != to_float(q);                             \
        if ((keep_nan) ? p_nan || q_nan : p_nan && q_nan) return canonical;                                            \
        if (p_nan || q_nan) return p_nan ? q : p;                                                                      \
        if (to_float(p) == to_float(q)) return p >> (bits - 1) == (first) ? p : q;                                     \
        return (to_float(p) < to_float(q)) == (first) ? p : q;                                                         \
    }
#define PTX_SAME(x) (x)
#define PTX_EXTREMES(flags, T, bits, to_float, input, canonical, keep_nan)                                             \
    PTX_EXTREME(min##flags, T, bits, to_float, input, , canonical, 1, keep_nan)                                        \
    PTX_EXTREME(max##flags, T, bits, to_float, input, , canonical, 0, keep_nan)
PTX_EXTREMES(, f32, 32, ptx_f32, PTX_SAME, PTX_NAN_F32, false)
PTX_EXTREMES(_ftz, f32, 32, ptx_f32, ptx_flushed, PTX_NAN_F32, false)
PTX_EXTREMES(_NaN, f32, 32, ptx_f32, PTX_SAME, PTX_NAN_F32, true)
PTX_EXTREMES(_ftz_NaN, f32, 32, ptx_f32, ptx_flushed, PTX_NAN_F32, true)
PTX_EXTREMES(, f64, 64, ptx_f64, PTX_SAME, PTX_NAN_F64, false)

#define PTX_DOUBLE(name, expression)                                                                                   \
    PTX_PURE uint64_t ptx_##name##_f64(uint64_t a, uint64_t b) {                                                       \
        const double x = ptx_f64(a), y = ptx_f64(b);                                                                   \
        return ptx_bits64(expression);                                                                                 \
    }
PTX_DOUBLE(add, x + y) PTX_DOUBLE(sub, x - y) PTX_DOUBLE(mul, x * y) PTX_DOUBLE(div, x / y)
#define PTX_DOUBLE_OF_ONE(name, expression)                                                                            \
    PTX_PURE uint64_t ptx_##name##_f64(uint64_t a) {                                                                   \
        const double x = ptx_f64(a);                                                                                   \
        return ptx_bits64(expression);                                                                                 \
    }
PTX_DOUBLE_OF_ONE(rcp, 1 / x) PTX_DOUBLE_OF_ONE(sqrt, sqrt(x)) PTX_DOUBLE_OF_ONE(rsqrt, 1 / sqrt(x))
PTX_DOUBLE_OF_ONE(abs, fabs(x)) PTX_DOUBLE_OF_ONE(neg, -x)
PTX_PURE uint64_t ptx_fma_f64(uint64_t a, uint64_t b, uint64_t c) {
    return ptx_bits64(fma(ptx_f64(a), ptx_f64(b), ptx_f64(c)));
}

// copysign: the sign of a, the magnitude of b.
PTX_PURE uint32_t ptx_copysign_f32(uint32_t a, uint32_t b) { return (a & 0x80000000u) | (b & 0x7fffffffu); }
PTX_PURE uint64_t ptx_copysign_f64(uint64_t a, uint64_t b) { return (a & 1ull << 63) | (b & ~(1ull << 63)); }

#define PTX_TEST(T, bits, value)                                                                                       \
    PTX_PURE bool ptx_testp_finite_##T(uint##bits##_t a) { return isfinite(value(a)); }                                \
    PTX_PURE bool ptx_testp_infinite_##T(uint##bits##_t a) { return isinf(value(a)); }                                 \
    PTX_PURE bool ptx_testp_number_##T(uint##bits##_t a) { return !isnan(value(a)); }                                  \
    PTX_PURE bool ptx_testp_notanumber_##T(uint##bits##_t a) { return isnan(value(a)); }                               \
    PTX_PURE bool ptx_testp_normal_##T(uint##bits##_t a) { return isnormal(value(a)); }                                \
    PTX_PURE bool ptx_testp_subnormal_##T(uint##bits##_t a) { return fpclassify(value(a)) == FP_SUBNORMAL; }
PTX_TEST(f32, 32, ptx_f32) PTX_TEST(f64, 64, ptx_f64)

// Comparisons (9.7.6.2, 9.3.1): those with u are also true if one operand is NaN, the others, also ne, only without one.
#define PTX_COMPARE(T, bits, value)                                                                                    \
    PTX_PURE bool ptx_nan_##T(uint##bits##_t a, uint##bits##_t b) { return isunordered(value(a), value(b)); }          \
    PTX_PURE bool ptx_num_##T(uint##bits##_t a, uint##bits##_t b) { return !isunordered(value(a), value(b)); }         \
    PTX_PURE bool ptx_eq_##T(uint##bits##_t a, uint##bits##_t b) { return value(a) == value(b); }                      \
    PTX_PURE bool ptx_ne_##T(uint##bits##_t a, uint##bits##_t b) { return islessgreater(value(a), value(b)); }         \
    PTX_PURE bool ptx_lt_##T(uint##bits##_t a, uint##bits##_t b) { return isless(value(a), value(b)); }                \
    PTX_PURE bool ptx_le_##T(uint##bits##_t a, uint##bits##_t b) { return islessequal(value(a), value(b)); }           \
    PTX_PURE bool ptx_gt_##T(uint##bits##_t a, uint##bits##_t b) { return isgreater(value(a), value(b)); }             \
    PTX_PURE bool ptx_ge_##T(uint##bits##_t a, uint##bits##_t b) { return isgreaterequal(value(a), value(b)); }        \
    PTX_PURE bool ptx_equ_##T(uint##bits##_t a, uint##bits##_t b) { return !islessgreater(value(a), value(b)); }       \
    PTX_PURE bool ptx_neu_##T(uint##bits##_t a, uint##bits##_t b) { return value(a) != value(b); }                     \
    PTX_PURE bool ptx_ltu_##T(uint##bits##_t a, uint##bits##_t b) { return !isgreaterequal(value(a), value(b)); }      \
    PTX_PURE bool ptx_leu_##T(uint##bits##_t a, uint##bits##_t b) { return !isgreater(value(a), value(b)); }           \
    PTX_PURE bool ptx_gtu_##T(uint##bits##_t a, uint##bits##_t b) { return !islessequal(value(a), value(b)); }         \
    PTX_PURE bool ptx_geu_##T(uint##bits##_t a, uint##bits##_t b) { return !isless(value(a), value(b)); }
PTX_COMPARE(f32, 32, ptx_f32) PTX_COMPARE(ftz_f32, 32, ptx_f32_ftz) PTX_COMPARE(f64, 64, ptx_f64)

#endif
