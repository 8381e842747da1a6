// Conversion between types: PTX ISA 9.0, 9.7.9.22 (cvt), 5.2.3 (alternate floating-point formats).
#ifndef PTX_CONVERT_H
#define PTX_CONVERT_H

#include "ptx_half.h"

#define PTX_INTEGERS(apply, other)                                                                                     \
    apply(u8, uint8_t, 8, 0, UINT8_MAX, other) apply(s8, int8_t, 8, INT8_MIN, INT8_MAX, other)                         \
    apply(u16, uint16_t, 16, 0, UINT16_MAX, other) apply(s16, int16_t, 16, INT16_MIN, INT16_MAX, other)                \
    apply(u32, uint32_t, 32, 0, UINT32_MAX, other) apply(s32, int32_t, 32, INT32_MIN, INT32_MAX, other)                \
    apply(u64, uint64_t, 64, 0, UINT64_MAX, other) apply(s64, int64_t, 64, INT64_MIN, INT64_MAX, other)

// Integer to integer: to fewer bits truncated, to more bits extended; .sat clamps.
#define PTX_TO_INTEGER(T, type, bits, least, greatest, S)                                                              \
    PTX_PURE type ptx_cvt_##T##_##S(S##_t a) { return (type) a; }                                                      \
    PTX_PURE type ptx_cvt_sat_##T##_##S(S##_t a) {                                                                     \
        const __int128 value = a;                                                                                      \
        return value < (__int128) (least) ? (type) (least) : value > (__int128) (greatest) ? (type) (greatest) : (type) a; \
    }
typedef uint8_t  u8_t;
typedef int8_t   s8_t;
typedef uint16_t u16_t;
typedef int16_t  s16_t;
typedef uint32_t u32_t;
typedef int32_t  s32_t;
typedef uint64_t u64_t;
typedef int64_t  s64_t;
PTX_INTEGERS(PTX_TO_INTEGER, u8) PTX_INTEGERS(PTX_TO_INTEGER, s8)
PTX_INTEGERS(PTX_TO_INTEGER, u16) PTX_INTEGERS(PTX_TO_INTEGER, s16)
PTX_INTEGERS(PTX_TO_INTEGER, u32) PTX_INTEGERS(PTX_TO_INTEGER, s32)
PTX_INTEGERS(PTX_TO_INTEGER, u64) PTX_INTEGERS(PTX_TO_INTEGER, s64)

// Integer to floating-point, to the nearest. What a double lacks of 64 bits is the error for ptx_to_odd.
#define PTX_FROM_INTEGER(S, type, bits, least, greatest, unused)                                                       \
    PTX_PURE uint32_t ptx_cvt_f32_##S(type a) { return ptx_bits((float) a); }                                          \
    PTX_PURE uint64_t ptx_cvt_f64_##S(type a) { return ptx_bits64((double) a); }                                       \
    PTX_PURE float ptx_odd_##S(type a) {                                                                               \
        const double value = (double) a;                                                                               \
        return ptx_to_odd(value, (double) ((__int128) a - (__int128) value));                                          \
    }                                                                                                                  \
    PTX_PURE uint16_t ptx_cvt_f16_##S(type a) { return ptx_to_half(ptx_odd_##S(a)); }                                  \
    PTX_PURE uint16_t ptx_cvt_bf16_##S(type a) { return ptx_to_brain(ptx_odd_##S(a)); }
PTX_INTEGERS(PTX_FROM_INTEGER, )

// Floating-point to integer: rounded as the name says, then clamped.
#define PTX_ROUND_TO_INTEGER(T, type, bits, least, greatest, source)                                                   \
    PTX_ROUND_TO_INTEGER_##source(rni, rint, T, type, bits, least, greatest)                                           \
    PTX_ROUND_TO_INTEGER_##source(rzi, trunc, T, type, bits, least, greatest)                                          \
    PTX_ROUND_TO_INTEGER_##source(rmi, floor, T, type, bits, least, greatest)                                          \
    PTX_ROUND_TO_INTEGER_##source(rpi, ceil, T, type, bits, least, greatest)
#define PTX_ROUNDED(name, S, source_bits, value, round, type, bits, least, greatest)                                   \
    PTX_PURE type ptx_cvt_##name(uint##source_bits##_t a) {                                                            \
        const double number = value(a);                                                                                \
        if (isnan(number)) return bits == 64 || source_bits == 64 ? (type) (1ull << (bits - 1)) : 0;                   \
        const double whole = round(number);                                                                            \
        if (whole < (double) (least)) return (type) (least);                                                           \
        return whole >= (double) (greatest) ? (type) (greatest) : (type) whole;                                        \
    }
#define PTX_ROUND_TO_INTEGER_f16(name, round, T, type, bits, least, greatest)                                          \
    PTX_ROUNDED(name##_##T##_f16, f16, 16, ptx_half, round, type, bits, least, greatest)
#define PTX_ROUND_TO_INTEGER_bf16(name, round, T, type, bits, least, greatest)                                         \
    PTX_ROUNDED(name##_##T##_bf16, bf16, 16, ptx_brain, round, type, bits, least, greatest)
#define PTX_ROUND_TO_INTEGER_f32(name, round, T, type, bits, least, greatest)                                          \
    PTX_ROUNDED(name##_##T##_f32, f32, 32, ptx_f32, round, type, bits, least, greatest)                                \
    PTX_ROUNDED(name##_ftz_##T##_f32, f32, 32, ptx_f32_ftz, round, type, bits, least, greatest)
#define PTX_ROUND_TO_INTEGER_f64(name, round, T, type, bits, least, greatest)                                          \
    PTX_ROUNDED(name##_##T##_f64, f64, 64, ptx_f64, round, type, bits, least, greatest)
PTX_INTEGERS(PTX_ROUND_TO_INTEGER, f16) PTX_INTEGERS(PTX_ROUND_TO_INTEGER, bf16)
PTX_INTEGERS(PTX_ROUND_TO_INTEGER, f32) PTX_INTEGERS(PTX_ROUND_TO_INTEGER, f64)

// Floating-point to an integer of the same type.
#define PTX_INTEGRAL(name, round_f32, round_f64)                                                                       \
    PTX_FLOAT_SAT(cvt_##name##_same, ONE, round_f32(x))                                                                \
    PTX_PURE uint64_t ptx_cvt_##name##_f64_f64(uint64_t a) { return ptx_bits64(round_f64(ptx_f64(a))); }               \
    PTX_PURE uint16_t ptx_cvt_##name##_f16_f16(uint16_t a) { return ptx_to_half(round_f32(ptx_half(a))); }
PTX_INTEGRAL(rni, rintf, rint) PTX_INTEGRAL(rzi, truncf, trunc)
PTX_INTEGRAL(rmi, floorf, floor) PTX_INTEGRAL(rpi, ceilf, ceil)

// To a wider type, or the same one.
PTX_PURE uint32_t ptx_cvt_f32_f16(uint16_t a) { return ptx_bits(ptx_half(a)); }
PTX_PURE uint32_t ptx_cvt_f32_bf16(uint16_t a) { return (uint32_t) a << 16; }
PTX_PURE uint64_t ptx_cvt_f64_f32(uint32_t a) { return ptx_bits64(ptx_f32(a)); }
PTX_PURE uint64_t ptx_cvt_ftz_f64_f32(uint32_t a) { return ptx_bits64(ptx_f32_ftz(a)); }
PTX_FLOAT_SAT(cvt_same, ONE, x)

// To a narrower type.
#define PTX_NARROW(name, narrow)                                                                                       \
    PTX_PURE uint32_t ptx_cvt##name##_f32_f64(uint64_t a) { return ptx_bits(narrow(ptx_f64(a))); }                     \
    PTX_PURE uint32_t ptx_cvt##name##_ftz_f32_f64(uint64_t a) { return ptx_bits_ftz(narrow(ptx_f64(a))); }             \
    PTX_PURE uint32_t ptx_cvt##name##_sat_f32_f64(uint64_t a) { return ptx_bits_sat(narrow(ptx_f64(a))); }             \
    PTX_PURE uint32_t ptx_cvt##name##_ftz_sat_f32_f64(uint64_t a) { return ptx_bits_ftz_sat(narrow(ptx_f64(a))); }
PTX_PURE float ptx_narrow(double value) { return (float) value; }
PTX_PURE float ptx_narrow_rz(double value) { return ptx_toward_zero(value, 0); }
PTX_NARROW(, ptx_narrow) PTX_NARROW(_rz, ptx_narrow_rz)
PTX_PURE uint16_t ptx_cvt_f16_f64(uint64_t a) { return ptx_double_to_half(ptx_f64(a)); }

// The number next to zero of those around value; the nearest can be one too far.
PTX_PURE uint16_t ptx_to_half_rz(float value) {
    const uint16_t nearest = ptx_to_half(value);
    return fabsf(ptx_half(nearest)) > fabsf(value) ? (uint16_t) (nearest - 1) : nearest;
}
PTX_PURE uint16_t ptx_to_brain_rz(float value) { return isnan(value) ? PTX_NAN_16 : (uint16_t) (ptx_bits(value) >> 16); }
#define PTX_NARROW_16(name, T, narrow)                                                                                 \
    PTX_PURE uint16_t ptx_cvt##name##_##T##_f32(uint32_t a) { return narrow(ptx_f32(a)); }                             \
    PTX_PURE uint16_t ptx_cvt##name##_relu_##T##_f32(uint32_t a) { return ptx_relu_16(narrow(ptx_f32(a))); }           \
    PTX_PURE uint32_t ptx_cvt##name##_##T##x2_f32(uint32_t a, uint32_t b) {                                            \
        return ptx_pair(ptx_cvt##name##_##T##_f32(b), ptx_cvt##name##_##T##_f32(a));                                   \
    }                                                                                                                  \
    PTX_PURE uint32_t ptx_cvt##name##_relu_##T##x2_f32(uint32_t a, uint32_t b) {                                       \
        return ptx_pair(ptx_cvt##name##_relu_##T##_f32(b), ptx_cvt##name##_relu_##T##_f32(a));                         \
    }
PTX_NARROW_16(, f16, ptx_to_half) PTX_NARROW_16(_rz, f16, ptx_to_half_rz)
PTX_NARROW_16(, bf16, ptx_to_brain) PTX_NARROW_16(_rz, bf16, ptx_to_brain_rz)
#define PTX_HALF_FLAGS(name, narrow)                                                                                   \
    PTX_PURE uint16_t ptx_cvt##name##_ftz_f16_f32(uint32_t a) { return narrow(ptx_f32_ftz(a)); }                       \
    PTX_PURE uint16_t ptx_cvt##name##_sat_f16_f32(uint32_t a) { return ptx_half_sat(narrow(ptx_f32(a))); }             \
    PTX_PURE uint16_t ptx_cvt##name##_ftz_sat_f16_f32(uint32_t a) { return ptx_half_sat(narrow(ptx_f32_ftz(a))); }
PTX_HALF_FLAGS(, ptx_to_half) PTX_HALF_FLAGS(_rz, ptx_to_half_rz)

// tf32 has 10 bits of mantissa; .rna: a tie goes away from zero.
PTX_PURE uint32_t ptx_cvt_rna_tf32_f32(uint32_t a) {
    return (isnan(ptx_f32(a)) ? PTX_NAN_F32 : a + 0x1000) & ~0x1fffu;
}

// A number of 8 bits or less: `mantissa` bits, subnormals in units of 2^least. Beyond the largest it is the largest.
PTX_PURE uint8_t ptx_small(float value, int mantissa, int least, uint8_t largest, uint8_t nan) {
    if (isnan(value)) return nan;
    int          exponent;
    const double magnitude = fabs((double) value);
    if (isinf(value)) return (uint8_t) (largest | (value < 0 ? 128 : 0));
    frexp(magnitude, &exponent);
    const int    unit = exponent - 1 - mantissa > least && magnitude != 0 ? exponent - 1 - mantissa : least;
    const double code = rint(ldexp(magnitude, -unit)) + (double) (unit - least) * (1 << mantissa);
    return (uint8_t) ((code > largest ? largest : (uint8_t) code) | (signbit(value) ? 128 : 0));
}
PTX_PURE uint8_t  ptx_to_e4m3x2(float value) { return ptx_small(value, 3, -9, 0x7e, 0x7f); }
PTX_PURE uint8_t  ptx_to_e5m2x2(float value) { return ptx_small(value, 2, -16, 0x7b, 0x7f); }
PTX_PURE uint16_t ptx_from_e4m3x2(uint8_t a) {
    const int   exponent = a >> 3 & 15, mantissa = a & 7;
    const float value = exponent ? ldexpf((float) (8 + mantissa), exponent - 10) : ldexpf((float) mantissa, -9);
    return (a & 127) == 127 ? PTX_NAN_16 : ptx_to_half(a & 128 ? -value : value);
}
PTX_PURE uint16_t ptx_from_e5m2x2(uint8_t a) { return (a & 127) > 0x7c ? PTX_NAN_16 : (uint16_t) (a << 8); }
PTX_PURE float    ptx_relu(float value) { return value < 0 || value == 0 ? 0 : value; }
#define PTX_SMALL(T)                                                                                                   \
    PTX_PURE uint16_t ptx_cvt_##T##_f32(uint32_t a, uint32_t b) {                                                      \
        return (uint16_t) (ptx_to_##T(ptx_f32(b)) | ptx_to_##T(ptx_f32(a)) << 8);                                      \
    }                                                                                                                  \
    PTX_PURE uint16_t ptx_cvt_relu_##T##_f32(uint32_t a, uint32_t b) {                                                 \
        return ptx_cvt_##T##_f32(ptx_bits(ptx_relu(ptx_f32(a))), ptx_bits(ptx_relu(ptx_f32(b))));                      \
    }                                                                                                                  \
    PTX_PURE uint16_t ptx_cvt_##T##_f16x2(uint32_t a) {                                                                \
        return ptx_cvt_##T##_f32(ptx_cvt_f32_f16((uint16_t) (a >> 16)), ptx_cvt_f32_f16((uint16_t) a));                \
    }                                                                                                                  \
    PTX_PURE uint16_t ptx_cvt_relu_##T##_f16x2(uint32_t a) {                                                           \
        return ptx_cvt_relu_##T##_f32(ptx_cvt_f32_f16((uint16_t) (a >> 16)), ptx_cvt_f32_f16((uint16_t) a));           \
    }                                                                                                                  \
    PTX_PURE uint32_t ptx_cvt_f16x2_##T(uint16_t a) {                                                                  \
        return ptx_pair(ptx_from_##T((uint8_t) a), ptx_from_##T((uint8_t) (a >> 8)));                                  \
    }                                                                                                                  \
    PTX_PURE uint32_t ptx_cvt_relu_f16x2_##T(uint16_t a) {                                                             \
        return ptx_pair(ptx_relu_16(ptx_from_##T((uint8_t) a)), ptx_relu_16(ptx_from_##T((uint8_t) (a >> 8))));        \
    }
PTX_SMALL(e4m3x2) PTX_SMALL(e5m2x2)

// Two numbers of 4 bits in a byte (e2m1 has neither infinity nor NaN: a NaN becomes the largest number), and powers of
// two (ue8m0).
PTX_PURE uint8_t ptx_to_e2m1(float value) {
    const uint8_t code = ptx_small(value, 1, -1, 7, 7);
    return (uint8_t) ((code & 7) | code >> 4);
}
PTX_PURE uint16_t ptx_from_e2m1(uint32_t code) {
    const float value = code & 6 ? ldexpf((float) (2 + (code & 1)), (int) (code >> 1 & 3) - 2) : 0.5f * (float) (code & 1);
    return ptx_to_half(code & 8 ? -value : value);
}
PTX_PURE uint8_t ptx_cvt_e2m1x2_f32(uint32_t a, uint32_t b) {
    return (uint8_t) (ptx_to_e2m1(ptx_f32(b)) | ptx_to_e2m1(ptx_f32(a)) << 4);
}
PTX_PURE uint8_t ptx_cvt_relu_e2m1x2_f32(uint32_t a, uint32_t b) {
    return ptx_cvt_e2m1x2_f32(ptx_bits(ptx_relu(ptx_f32(a))), ptx_bits(ptx_relu(ptx_f32(b))));
}
PTX_PURE uint32_t ptx_cvt_f16x2_e2m1x2(uint8_t a) { return ptx_pair(ptx_from_e2m1(a & 15), ptx_from_e2m1(a >> 4)); }
PTX_PURE uint32_t ptx_cvt_relu_f16x2_e2m1x2(uint8_t a) {
    return ptx_pair(ptx_relu_16(ptx_from_e2m1(a & 15)), ptx_relu_16(ptx_from_e2m1(a >> 4)));
}
PTX_PURE uint16_t ptx_from_ue8m0(uint8_t a) { return a == 255 ? PTX_NAN_16 : a == 0 ? 0x40 : (uint16_t) (a << 7); }
PTX_PURE uint32_t ptx_cvt_bf16x2_ue8m0x2(uint16_t a) {
    return ptx_pair(ptx_from_ue8m0((uint8_t) a), ptx_from_ue8m0((uint8_t) (a >> 8)));
}

#endif
