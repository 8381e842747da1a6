// Integer arithmetic, logic and shifts: PTX ISA 9.0, 9.7.1 and 9.7.8. Pure functions; registers are unsigned.
#ifndef PTX_INTEGER_H
#define PTX_INTEGER_H

#include <stdbool.h>
#include <stdint.h>

#define PTX_PURE static inline __attribute__((const, unused))

// mul and mad of one type: `.lo` and `.hi` are halves of the product of twice the width.
#define PTX_MULTIPLY(T, bits, type, double_type, unsigned_double)                                                      \
    PTX_PURE uint##bits##_t ptx_mul_lo_##T(uint##bits##_t a, uint##bits##_t b) {                                       \
        return (uint##bits##_t) ((unsigned_double) a * b);                                                             \
    }                                                                                                                  \
    PTX_PURE uint##bits##_t ptx_mul_hi_##T(uint##bits##_t a, uint##bits##_t b) {                                       \
        return (uint##bits##_t) (((double_type) (type) a * (double_type) (type) b) >> bits);                           \
    }                                                                                                                  \
    PTX_PURE uint##bits##_t ptx_mad_lo_##T(uint##bits##_t a, uint##bits##_t b, uint##bits##_t c) {                     \
        return (uint##bits##_t) (ptx_mul_lo_##T(a, b) + c);                                                            \
    }                                                                                                                  \
    PTX_PURE uint##bits##_t ptx_mad_hi_##T(uint##bits##_t a, uint##bits##_t b, uint##bits##_t c) {                     \
        return (uint##bits##_t) (ptx_mul_hi_##T(a, b) + c);                                                            \
    }
PTX_MULTIPLY(s16, 16, int16_t, int32_t, uint32_t)
PTX_MULTIPLY(u16, 16, uint16_t, uint32_t, uint32_t)
PTX_MULTIPLY(s32, 32, int32_t, int64_t, uint64_t)
PTX_MULTIPLY(u32, 32, uint32_t, uint64_t, uint64_t)
PTX_MULTIPLY(s64, 64, int64_t, __int128, unsigned __int128)
PTX_MULTIPLY(u64, 64, uint64_t, unsigned __int128, unsigned __int128)

#define PTX_WIDE(T, bits, type, wide_bits, wide)                                                                       \
    PTX_PURE uint##wide_bits##_t ptx_mul_wide_##T(uint##bits##_t a, uint##bits##_t b) {                                \
        return (uint##wide_bits##_t) ((wide) (type) a * (wide) (type) b);                                              \
    }                                                                                                                  \
    PTX_PURE uint##wide_bits##_t ptx_mad_wide_##T(uint##bits##_t a, uint##bits##_t b, uint##wide_bits##_t c) {         \
        return ptx_mul_wide_##T(a, b) + c;                                                                             \
    }
PTX_WIDE(s16, 16, int16_t, 32, int32_t)
PTX_WIDE(u16, 16, uint16_t, 32, uint32_t)
PTX_WIDE(s32, 32, int32_t, 64, int64_t)
PTX_WIDE(u32, 32, uint32_t, 64, uint64_t)

// Division by zero gives all bits set, its remainder is the dividend: the ISA leaves both open. The least integer
// divided by -1 wraps.
#define PTX_DIVIDE_UNSIGNED(bits)                                                                                      \
    PTX_PURE uint##bits##_t ptx_div_u##bits(uint##bits##_t a, uint##bits##_t b) {                                      \
        return b == 0 ? (uint##bits##_t) -1 : (uint##bits##_t) (a / b);                                                \
    }                                                                                                                  \
    PTX_PURE uint##bits##_t ptx_rem_u##bits(uint##bits##_t a, uint##bits##_t b) {                                      \
        return b == 0 ? a : (uint##bits##_t) (a % b);                                                                  \
    }
#define PTX_DIVIDE_SIGNED(bits)                                                                                        \
    PTX_PURE uint##bits##_t ptx_div_s##bits(uint##bits##_t a, uint##bits##_t b) {                                      \
        if (b == 0) return (uint##bits##_t) -1;                                                                        \
        return b == (uint##bits##_t) -1 ? (uint##bits##_t) (0 - a) : (uint##bits##_t) ((int##bits##_t) a / (int##bits##_t) b); \
    }                                                                                                                  \
    PTX_PURE uint##bits##_t ptx_rem_s##bits(uint##bits##_t a, uint##bits##_t b) {                                      \
        if (b == 0) return a;                                                                                          \
        return b == (uint##bits##_t) -1 ? 0 : (uint##bits##_t) ((int##bits##_t) a % (int##bits##_t) b);                \
    }
PTX_DIVIDE_UNSIGNED(16) PTX_DIVIDE_UNSIGNED(32) PTX_DIVIDE_UNSIGNED(64)
PTX_DIVIDE_SIGNED(16) PTX_DIVIDE_SIGNED(32) PTX_DIVIDE_SIGNED(64)

#define PTX_ORDER(T, bits, type)                                                                                       \
    PTX_PURE uint##bits##_t ptx_min_##T(uint##bits##_t a, uint##bits##_t b) { return (type) a < (type) b ? a : b; }    \
    PTX_PURE uint##bits##_t ptx_max_##T(uint##bits##_t a, uint##bits##_t b) { return (type) a > (type) b ? a : b; }    \
    PTX_PURE uint##bits##_t ptx_sad_##T(uint##bits##_t a, uint##bits##_t b, uint##bits##_t c) {                        \
        return (uint##bits##_t) (c + ((type) a < (type) b ? b - a : a - b));                                           \
    }
PTX_ORDER(s16, 16, int16_t) PTX_ORDER(u16, 16, uint16_t) PTX_ORDER(s32, 32, int32_t)
PTX_ORDER(u32, 32, uint32_t) PTX_ORDER(s64, 64, int64_t) PTX_ORDER(u64, 64, uint64_t)

#define PTX_SIGN(bits)                                                                                                 \
    PTX_PURE uint##bits##_t ptx_neg_s##bits(uint##bits##_t a) { return (uint##bits##_t) (0 - a); }                     \
    PTX_PURE uint##bits##_t ptx_abs_s##bits(uint##bits##_t a) {                                                        \
        return (int##bits##_t) a < 0 ? (uint##bits##_t) (0 - a) : a;                                                   \
    }                                                                                                                  \
    PTX_PURE uint##bits##_t ptx_cnot_b##bits(uint##bits##_t a) { return a == 0; }
PTX_SIGN(16) PTX_SIGN(32) PTX_SIGN(64)

PTX_PURE uint32_t ptx_saturated(int64_t sum) {
    return (uint32_t) (sum > INT32_MAX ? INT32_MAX : sum < INT32_MIN ? INT32_MIN : sum);
}
PTX_PURE uint32_t ptx_add_sat_s32(uint32_t a, uint32_t b) { return ptx_saturated((int64_t) (int32_t) a + (int32_t) b); }
PTX_PURE uint32_t ptx_sub_sat_s32(uint32_t a, uint32_t b) { return ptx_saturated((int64_t) (int32_t) a - (int32_t) b); }

PTX_PURE uint32_t ptx_popc_b32(uint32_t a) { return (uint32_t) __builtin_popcount(a); }
PTX_PURE uint32_t ptx_popc_b64(uint64_t a) { return (uint32_t) __builtin_popcountll(a); }
PTX_PURE uint32_t ptx_clz_b32(uint32_t a) { return a == 0 ? 32 : (uint32_t) __builtin_clz(a); }
PTX_PURE uint32_t ptx_clz_b64(uint64_t a) { return a == 0 ? 64 : (uint32_t) __builtin_clzll(a); }

// bfind: the highest bit that differs from the sign, all bits set if there is none; .shiftamt: how far it is from bit 31
// (or 63).
#define PTX_FIND(T, bits, inverted)                                                                                    \
    PTX_PURE uint32_t ptx_bfind_##T(uint##bits##_t a) {                                                                \
        const uint##bits##_t v = (inverted) ? (uint##bits##_t) ~a : a;                                                 \
        return v == 0 ? UINT32_MAX : bits - 1 - ptx_clz_b##bits(v);                                                    \
    }                                                                                                                  \
    PTX_PURE uint32_t ptx_bfind_shiftamt_##T(uint##bits##_t a) {                                                       \
        const uint32_t bit = ptx_bfind_##T(a);                                                                         \
        return bit == UINT32_MAX ? bit : bits - 1 - bit;                                                               \
    }
PTX_FIND(u32, 32, false) PTX_FIND(s32, 32, (int32_t) a < 0) PTX_FIND(u64, 64, false) PTX_FIND(s64, 64, (int64_t) a < 0)

PTX_PURE uint32_t ptx_brev_b32(uint32_t a) {
    a = (a >> 1 & 0x55555555) | (a & 0x55555555) << 1;
    a = (a >> 2 & 0x33333333) | (a & 0x33333333) << 2;
    a = (a >> 4 & 0x0f0f0f0f) | (a & 0x0f0f0f0f) << 4;
    return __builtin_bswap32(a);
}
PTX_PURE uint64_t ptx_brev_b64(uint64_t a) {
    return (uint64_t) ptx_brev_b32((uint32_t) a) << 32 | ptx_brev_b32((uint32_t) (a >> 32));
}

// bfe, bfi: position and length are the lowest 8 bits of b and c. Bits of a field behind the end are the sign (bfe.s) or
// 0; a field of no bits is 0.
#define PTX_FIELD(bits)                                                                                                \
    PTX_PURE uint##bits##_t ptx_ones_##bits(uint32_t count) {                                                          \
        return count >= bits ? (uint##bits##_t) -1 : ((uint##bits##_t) 1 << count) - 1;                                \
    }                                                                                                                  \
    PTX_PURE uint##bits##_t ptx_bfe_u##bits(uint##bits##_t a, uint32_t b, uint32_t c) {                                \
        const uint32_t position = b & 255, length = c & 255;                                                           \
        return position >= bits ? 0 : a >> position & ptx_ones_##bits(length);                                         \
    }                                                                                                                  \
    PTX_PURE uint##bits##_t ptx_bfe_s##bits(uint##bits##_t a, uint32_t b, uint32_t c) {                                \
        const uint32_t position = b & 255, length = c & 255;                                                           \
        if (length == 0) return 0;                                                                                     \
        const uint32_t top = position + length - 1, last = top < bits ? top : bits - 1;                                \
        const uint##bits##_t sign = (uint##bits##_t) 0 - (a >> last & 1);                                              \
        const uint##bits##_t field = position >= bits ? 0 : a >> position;                                             \
        const uint32_t taken = position >= bits ? 0 : last - position + 1;                                             \
        return (field & ptx_ones_##bits(taken)) | (sign & ~ptx_ones_##bits(taken));                                    \
    }                                                                                                                  \
    PTX_PURE uint##bits##_t ptx_bfi_b##bits(uint##bits##_t a, uint##bits##_t b, uint32_t c, uint32_t d) {              \
        const uint32_t position = c & 255, length = d & 255;                                                           \
        if (position >= bits) return b;                                                                                \
        const uint##bits##_t mask = ptx_ones_##bits(length) << position;                                               \
        return (b & ~mask) | (a << position & mask);                                                                   \
    }
PTX_FIELD(32) PTX_FIELD(64)

PTX_PURE uint32_t ptx_bmsk_clamp(uint32_t a, uint32_t b) { return a > 31 ? 0 : ptx_ones_32(b) << a; }
PTX_PURE uint32_t ptx_bmsk_wrap(uint32_t a, uint32_t b) { return ptx_ones_32(b & 31) << (a & 31); }

// dp4a, dp2a: sums of products of bytes, or of halves with the bytes of the lower or upper half of b.
#define PTX_DOT(A, B, a4, a2, b4)                                                                                      \
    PTX_PURE uint32_t ptx_dp4a_##A##_##B(uint32_t a, uint32_t b, uint32_t c) {                                         \
        for (int i = 0; i < 32; i += 8) c += (uint32_t) ((int32_t) (a4) (a >> i) * (int32_t) (b4) (b >> i));           \
        return c;                                                                                                      \
    }                                                                                                                  \
    PTX_PURE uint32_t ptx_dp2a_lo_##A##_##B(uint32_t a, uint32_t b, uint32_t c) {                                      \
        for (int i = 0; i < 2; i++) c += (uint32_t) ((int32_t) (a2) (a >> 16 * i) * (int32_t) (b4) (b >> 8 * i));      \
        return c;                                                                                                      \
    }                                                                                                                  \
    PTX_PURE uint32_t ptx_dp2a_hi_##A##_##B(uint32_t a, uint32_t b, uint32_t c) {                                      \
        return ptx_dp2a_lo_##A##_##B(a, b >> 16, c);                                                                   \
    }
PTX_DOT(s32, s32, int8_t, int16_t, int8_t)
PTX_DOT(s32, u32, int8_t, int16_t, uint8_t)
PTX_DOT(u32, s32, uint8_t, uint16_t, int8_t)
PTX_DOT(u32, u32, uint8_t, uint16_t, uint8_t)

// shl, shr: a shift by more than the width is one by the width.
#define PTX_SHIFT(bits)                                                                                                \
    PTX_PURE uint##bits##_t ptx_shl_b##bits(uint##bits##_t a, uint32_t b) {                                            \
        return b >= bits ? 0 : (uint##bits##_t) (a << b);                                                              \
    }                                                                                                                  \
    PTX_PURE uint##bits##_t ptx_shr_u##bits(uint##bits##_t a, uint32_t b) {                                            \
        return b >= bits ? 0 : (uint##bits##_t) (a >> b);                                                              \
    }                                                                                                                  \
    PTX_PURE uint##bits##_t ptx_shr_s##bits(uint##bits##_t a, uint32_t b) {                                            \
        return (uint##bits##_t) ((int##bits##_t) a >> (b >= bits ? bits - 1 : b));                                     \
    }
PTX_SHIFT(16) PTX_SHIFT(32) PTX_SHIFT(64)

// shf: the 64 bits of b (high) and a (low) are shifted; .l gives the upper half, .r the lower one.
PTX_PURE uint32_t ptx_shf_l(uint32_t a, uint32_t b, uint32_t n) {
    return (uint32_t) (n >= 32 ? a : (((uint64_t) b << 32 | a) << n) >> 32);
}
PTX_PURE uint32_t ptx_shf_r(uint32_t a, uint32_t b, uint32_t n) { return (uint32_t) (((uint64_t) b << 32 | a) >> n); }
PTX_PURE uint32_t ptx_shf_l_clamp(uint32_t a, uint32_t b, uint32_t c) { return ptx_shf_l(a, b, c > 32 ? 32 : c); }
PTX_PURE uint32_t ptx_shf_r_clamp(uint32_t a, uint32_t b, uint32_t c) { return ptx_shf_r(a, b, c > 32 ? 32 : c); }
PTX_PURE uint32_t ptx_shf_l_wrap(uint32_t a, uint32_t b, uint32_t c) { return ptx_shf_l(a, b, c & 31); }
PTX_PURE uint32_t ptx_shf_r_wrap(uint32_t a, uint32_t b, uint32_t c) { return ptx_shf_r(a, b, c & 31); }

// lop3: bit i of the table is the result for the bits of a, b, c that make the number i. The table is a constant.
PTX_PURE uint32_t ptx_lop3(uint32_t a, uint32_t b, uint32_t c, uint32_t table) {
    uint32_t result = 0;
    for (uint32_t i = 0; i < 8; i++) {
        if (table >> i & 1) result |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
    }
    return result;
}

// prmt (9.7.9.7): bytes 0 to 3 are those of a, 4 to 7 those of b.
PTX_PURE uint32_t ptx_byte(uint32_t a, uint32_t b, uint32_t index) {
    return (uint32_t) (((uint64_t) b << 32 | a) >> 8 * (index & 7)) & 255;
}
PTX_PURE uint32_t ptx_prmt_default(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t result = 0;
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t select = c >> 4 * i, byte = ptx_byte(a, b, select);
        result |= (select & 8 ? (byte & 128 ? 255 : 0) : byte) << 8 * i;  // bit 3: only the sign of the byte
    }
    return result;
}
PTX_PURE uint32_t ptx_four_bytes(uint32_t a, uint32_t b, uint32_t i, uint32_t j, uint32_t k, uint32_t l) {
    return ptx_byte(a, b, i) | ptx_byte(a, b, j) << 8 | ptx_byte(a, b, k) << 16 | ptx_byte(a, b, l) << 24;
}
PTX_PURE uint32_t ptx_prmt_f4e(uint32_t a, uint32_t b, uint32_t c) {
    const uint32_t n = c & 3;
    return ptx_four_bytes(a, b, n, n + 1, n + 2, n + 3);
}
PTX_PURE uint32_t ptx_prmt_b4e(uint32_t a, uint32_t b, uint32_t c) {
    const uint32_t n = c & 3;
    return ptx_four_bytes(a, b, n, n - 1, n - 2, n - 3);
}
PTX_PURE uint32_t ptx_prmt_rc8(uint32_t a, uint32_t b, uint32_t c) {
    const uint32_t n = c & 3;
    return ptx_four_bytes(a, b, n, n, n, n);
}
PTX_PURE uint32_t ptx_prmt_ecl(uint32_t a, uint32_t b, uint32_t c) {
    const uint32_t n = c & 3;
    return ptx_four_bytes(a, b, n, n > 1 ? n : 1, n > 2 ? n : 2, 3);
}
PTX_PURE uint32_t ptx_prmt_ecr(uint32_t a, uint32_t b, uint32_t c) {
    const uint32_t n = c & 3;
    return ptx_four_bytes(a, b, 0, n < 1 ? n : 1, n < 2 ? n : 2, n);
}
PTX_PURE uint32_t ptx_prmt_rc16(uint32_t a, uint32_t b, uint32_t c) {
    const uint32_t n = c & 1 ? 2 : 0;
    return ptx_four_bytes(a, b, n, n + 1, n, n + 1);
}

#endif
