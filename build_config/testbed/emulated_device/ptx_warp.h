// What a warp computes together, from the operands of the lanes that met (a, row) to their results (r).
//
// shfl, vote, match, redux: PTX ISA 9.0, 9.7.9.6 and 9.7.13; ldmatrix, movmatrix, mma: 9.7.14.5. Lanes outside of the
// mask are not read; what would come from one is poison, for the ISA leaves it open.
#ifndef PTX_WARP_H
#define PTX_WARP_H

#include "ptx_convert.h"
#include "ptx_runtime.h"

#define PTX_MEETING static __attribute__((unused)) void
#define PTX_EACH(lane) for (uint32_t rest_ = mask, lane; rest_ && (lane = (uint32_t) __builtin_ctz(rest_), 1); rest_ &= rest_ - 1)
#define PTX_POISON 0x7fbadbadu  // a NaN

PTX_MEETING ptx_meeting(struct ptx_thread * lanes[PTX_WARP], uint32_t mask) { (void) lanes, (void) mask; }

// shfl: a[1] is the lane or distance, a[2] the clamp in bits 0 to 4 and the mask of segments in bits 8 to 12.
#define PTX_SHUFFLE(name, lane_expression, inside)                                                                     \
    PTX_MEETING ptx_shfl_##name(struct ptx_thread * lanes[PTX_WARP], uint32_t mask) {                                  \
        PTX_EACH(i) {                                                                                                  \
            const int32_t lane = (int32_t) i, b = (int32_t) (lanes[i]->a[1] & 31);                                     \
            const int32_t c = (int32_t) (lanes[i]->a[2] & 31), segment = (int32_t) (lanes[i]->a[2] >> 8 & 31);         \
            const int32_t least = lane & segment, most = least | (c & ~segment);                                       \
            (void) least;                                                                                              \
            int32_t    from = (lane_expression);                                                                       \
            const bool is_inside = (inside);                                                                           \
            if (!is_inside) from = lane;                                                                               \
            lanes[i]->r[0] = mask >> from & 1 ? lanes[from]->a[0] : PTX_POISON;                                        \
            lanes[i]->r[1] = is_inside;                                                                                \
        }                                                                                                              \
    }
PTX_SHUFFLE(up, lane - b, from >= most)
PTX_SHUFFLE(down, lane + b, from <= most)
PTX_SHUFFLE(bfly, lane ^ b, from <= most)
PTX_SHUFFLE(idx, least | (b & ~segment), from <= most)

static inline __attribute__((unused)) uint32_t ptx_ballot(struct ptx_thread * lanes[PTX_WARP], uint32_t mask) {
    uint32_t ballot = 0;
    PTX_EACH(i) ballot |= (uint32_t) (lanes[i]->a[0] != 0) << i;
    return ballot;
}
#define PTX_VOTE(name, result)                                                                                         \
    PTX_MEETING ptx_vote_##name(struct ptx_thread * lanes[PTX_WARP], uint32_t mask) {                                  \
        const uint32_t ballot = ptx_ballot(lanes, mask);                                                               \
        PTX_EACH(i) lanes[i]->r[0] = (result);                                                                         \
    }
PTX_VOTE(ballot, ballot) PTX_VOTE(any, ballot != 0) PTX_VOTE(all, ballot == mask) PTX_VOTE(uni, ballot == mask || ballot == 0)

#define PTX_REDUX(name, combined)                                                                                      \
    PTX_MEETING ptx_redux_##name(struct ptx_thread * lanes[PTX_WARP], uint32_t mask) {                                 \
        const uint32_t first = (uint32_t) __builtin_ctz(mask);                                                         \
        uint32_t       a = lanes[first]->a[0];                                                                         \
        PTX_EACH(i) {                                                                                                  \
            const uint32_t b = lanes[i]->a[0];                                                                         \
            if (i != first) a = (combined);                                                                            \
        }                                                                                                              \
        PTX_EACH(j) lanes[j]->r[0] = a;                                                                                \
    }
PTX_REDUX(add_u32, a + b) PTX_REDUX(add_s32, a + b)
PTX_REDUX(min_u32, ptx_min_u32(a, b)) PTX_REDUX(min_s32, ptx_min_s32(a, b))
PTX_REDUX(max_u32, ptx_max_u32(a, b)) PTX_REDUX(max_s32, ptx_max_s32(a, b))
PTX_REDUX(and_b32, a & b) PTX_REDUX(or_b32, a | b) PTX_REDUX(xor_b32, a ^ b)

static inline __attribute__((unused)) uint32_t ptx_equal(struct ptx_thread * lanes[PTX_WARP], uint32_t mask, uint32_t to) {
    uint32_t equal = 0;
    PTX_EACH(i) {
        const bool same = lanes[i]->a[0] == lanes[to]->a[0] && lanes[i]->a[1] == lanes[to]->a[1];
        equal |= (uint32_t) same << i;
    }
    return equal;
}
PTX_MEETING ptx_match_any(struct ptx_thread * lanes[PTX_WARP], uint32_t mask) {
    PTX_EACH(i) lanes[i]->r[0] = ptx_equal(lanes, mask, i);
}
PTX_MEETING ptx_match_all(struct ptx_thread * lanes[PTX_WARP], uint32_t mask) {
    const bool all = ptx_equal(lanes, mask, (uint32_t) __builtin_ctz(mask)) == mask;
    PTX_EACH(i) {
        lanes[i]->r[0] = all ? mask : 0;
        lanes[i]->r[1] = all;
    }
}

// ldmatrix: lane 8 j + i gives the address of row i of matrix j; lane l gets elements 2 (l % 4) and the next of row l / 4,
// with .trans of column l / 4.
static inline __attribute__((unused)) uint16_t ptx_element(struct ptx_thread * lanes[PTX_WARP], uint32_t mask, uint32_t row, uint32_t column) {
    return mask >> row & 1 ? ((const uint16_t *) lanes[row]->row)[column] : (uint16_t) PTX_POISON;
}
#define PTX_LDMATRIX(name, count, trans)                                                                               \
    PTX_MEETING ptx_ldmatrix_##name(struct ptx_thread * lanes[PTX_WARP], uint32_t mask) {                              \
        for (uint32_t j = 0; j < count; j++) PTX_EACH(i) {                                                             \
            const uint32_t line = i / 4, pair = 2 * (i % 4);                                                           \
            lanes[i]->r[j] = (trans) ? ptx_pair(ptx_element(lanes, mask, 8 * j + pair, line),                          \
                                                ptx_element(lanes, mask, 8 * j + pair + 1, line))                      \
                                     : ptx_pair(ptx_element(lanes, mask, 8 * j + line, pair),                          \
                                                ptx_element(lanes, mask, 8 * j + line, pair + 1));                     \
        }                                                                                                              \
    }
PTX_LDMATRIX(x1, 1, false) PTX_LDMATRIX(x2, 2, false) PTX_LDMATRIX(x4, 4, false)
PTX_LDMATRIX(x1_trans, 1, true) PTX_LDMATRIX(x2_trans, 2, true) PTX_LDMATRIX(x4_trans, 4, true)

// A register of another lane; poison if that lane did not meet.
static inline __attribute__((unused)) uint32_t ptx_operand(struct ptx_thread * lanes[PTX_WARP], uint32_t mask, uint32_t lane, uint32_t index) {
    return mask >> lane & 1 ? lanes[lane]->a[index] : PTX_POISON;
}
PTX_MEETING ptx_movmatrix(struct ptx_thread * lanes[PTX_WARP], uint32_t mask) {
    uint16_t matrix[8][8];
    for (uint32_t i = 0; i < PTX_WARP; i++) {
        const uint32_t pair = ptx_operand(lanes, mask, i, 0);
        matrix[i / 4][2 * (i % 4)] = (uint16_t) pair;
        matrix[i / 4][2 * (i % 4) + 1] = (uint16_t) (pair >> 16);
    }
    PTX_EACH(i) lanes[i]->r[0] = ptx_pair(matrix[2 * (i % 4)][i / 4], matrix[2 * (i % 4) + 1][i / 4]);
}

// mma: D = A B + C. With e elements in a register, lane l has in its register r of A: row l / 4 + 8 (r % 2), columns from
// e (l % 4) + 4 e (r / 2) on (with 8 rows: column e (l % 4) + 4 e r); of B: column l / 4, rows from e (l % 4) + 4 e r on; of
// C and D, which have one number each: row l / 4 + 8 (i / 2), column 2 (l % 4) + i % 2.
// Sums are made in double (products are exact there) and rounded once; the ISA leaves order and rounding open.
PTX_PURE double ptx_take_f16(uint32_t bits, int i) { return ptx_half((uint16_t) (bits >> 16 * i)); }
PTX_PURE double ptx_take_bf16(uint32_t bits, int i) { return ptx_brain((uint16_t) (bits >> 16 * i)); }
PTX_PURE double ptx_take_tf32(uint32_t bits, int i) { return (void) i, ptx_f32(bits & ~0x1fffu); }
PTX_PURE double ptx_take_f32(uint32_t bits, int i) { return (void) i, ptx_f32(bits); }
PTX_PURE int32_t ptx_take_s8(uint32_t bits, int i) { return (int8_t) (bits >> 8 * i); }
PTX_PURE int32_t ptx_take_u8(uint32_t bits, int i) { return (uint8_t) (bits >> 8 * i); }
PTX_PURE int32_t ptx_take_s32(uint32_t bits, int i) { return (void) i, (int32_t) bits; }
#define PTX_MMA(name, M, K, number, elements, take_a, take_b, c_elements, take_c, give)                                \
    __attribute__((optimize("O3"))) PTX_MEETING ptx_mma_##name(struct ptx_thread * lanes[PTX_WARP], uint32_t mask) {   \
        enum { E = elements, A = M * K / 32 / E, B = K * 8 / 32 / E, C = M / 4 };                                      \
        number a[M][K], b[K][8], d[M][8];                                                                              \
        for (uint32_t i = 0; i < PTX_WARP; i++) {                                                                      \
            const uint32_t g = i / 4, q = i % 4;                                                                       \
            for (uint32_t r = 0; r < A; r++) for (uint32_t e = 0; e < E; e++) {                                        \
                const uint32_t upper = M == 8 ? 0 : r % 2, step = M == 8 ? r : r / 2;                                  \
                a[g + 8 * upper][E * q + e + 4 * E * step] = take_a(ptx_operand(lanes, mask, i, r), (int) e);          \
            }                                                                                                          \
            for (uint32_t r = 0; r < B; r++) for (uint32_t e = 0; e < E; e++)                                          \
                b[E * q + e + 4 * E * r][g] = take_b(ptx_operand(lanes, mask, i, A + r), (int) e);                     \
            for (uint32_t r = 0; r < C; r++)                                                                           \
                d[g + 8 * (r / 2)][2 * q + r % 2] =                                                                    \
                    take_c(ptx_operand(lanes, mask, i, A + B + r / (c_elements)), (int) (r % (c_elements)));           \
        }                                                                                                              \
        for (uint32_t row = 0; row < M; row++) for (uint32_t k = 0; k < K; k++) for (uint32_t column = 0; column < 8; column++) \
            d[row][column] += a[row][k] * b[k][column];                                                                \
        PTX_EACH(l) {                                                                                                  \
            const number * low = &d[l / 4][2 * (l % 4)], * high = &d[l / 4 + (M == 16 ? 8 : 0)][2 * (l % 4)];          \
            give(lanes[l]->r, low, high, C)                                                                            \
        }                                                                                                              \
    }
#define PTX_GIVE_F32(r, low, high, count)                                                                              \
    r[0] = ptx_bits((float) low[0]), r[1] = ptx_bits((float) low[1]);                                                  \
    r[2] = ptx_bits((float) high[0]), r[3] = ptx_bits((float) high[1]);
#define PTX_GIVE_F16(r, low, high, count)                                                                              \
    r[0] = ptx_pair(ptx_double_to_half(low[0]), ptx_double_to_half(low[1]));                                           \
    r[1] = ptx_pair(ptx_double_to_half(high[0]), ptx_double_to_half(high[1]));
#define PTX_GIVE_S32(r, low, high, count)                                                                              \
    r[0] = (uint32_t) low[0], r[1] = (uint32_t) low[1];                                                                \
    if (count > 2) r[2] = (uint32_t) high[0], r[3] = (uint32_t) high[1];
PTX_MMA(m16n8k8_f32_f16_f16, 16, 8, double, 2, ptx_take_f16, ptx_take_f16, 1, ptx_take_f32, PTX_GIVE_F32)
PTX_MMA(m16n8k16_f32_f16_f16, 16, 16, double, 2, ptx_take_f16, ptx_take_f16, 1, ptx_take_f32, PTX_GIVE_F32)
PTX_MMA(m16n8k8_f16_f16_f16, 16, 8, double, 2, ptx_take_f16, ptx_take_f16, 2, ptx_take_f16, PTX_GIVE_F16)
PTX_MMA(m16n8k16_f16_f16_f16, 16, 16, double, 2, ptx_take_f16, ptx_take_f16, 2, ptx_take_f16, PTX_GIVE_F16)
PTX_MMA(m16n8k8_f32_bf16_bf16, 16, 8, double, 2, ptx_take_bf16, ptx_take_bf16, 1, ptx_take_f32, PTX_GIVE_F32)
PTX_MMA(m16n8k16_f32_bf16_bf16, 16, 16, double, 2, ptx_take_bf16, ptx_take_bf16, 1, ptx_take_f32, PTX_GIVE_F32)
PTX_MMA(m16n8k4_f32_tf32_tf32, 16, 4, double, 1, ptx_take_tf32, ptx_take_tf32, 1, ptx_take_f32, PTX_GIVE_F32)
PTX_MMA(m16n8k8_f32_tf32_tf32, 16, 8, double, 1, ptx_take_tf32, ptx_take_tf32, 1, ptx_take_f32, PTX_GIVE_F32)
#define PTX_MMA_INTEGER(M, K, T, U)                                                                                    \
    PTX_MMA(m##M##n8k##K##_s32_##T##_##U, M, K, int32_t, 4, ptx_take_##T, ptx_take_##U, 1, ptx_take_s32, PTX_GIVE_S32)
#define PTX_MMA_INTEGERS(M, K)                                                                                         \
    PTX_MMA_INTEGER(M, K, s8, s8) PTX_MMA_INTEGER(M, K, s8, u8) PTX_MMA_INTEGER(M, K, u8, s8) PTX_MMA_INTEGER(M, K, u8, u8)
PTX_MMA_INTEGERS(8, 16) PTX_MMA_INTEGERS(16, 16) PTX_MMA_INTEGERS(16, 32)

// mma with block scaling of e2m1: each row of A and each column of B has `scales` factors, for as many equal parts of the
// 64 numbers. In the quad of a row, the lane 2 * thread-id + row / 8 has those of A; in that of a column, the lane
// thread-id has those of B; byte-id is the first of its bytes. a[10] to a[15] are the factors, byte-id and thread-id of A
// and of B.
PTX_PURE double ptx_take_e2m1(uint32_t bits, int i) { return ptx_half(ptx_from_e2m1(bits >> 4 * i & 15)); }
PTX_PURE double ptx_take_ue8m0(uint32_t byte) { return ptx_brain(ptx_from_ue8m0((uint8_t) byte)); }
PTX_PURE double ptx_take_ue4m3(uint32_t byte) { return ptx_half(ptx_from_e4m3x2(byte & 127)); }
#define PTX_MMA_SCALED(name, scales, take)                                                                             \
    PTX_MEETING ptx_mma_##name(struct ptx_thread * lanes[PTX_WARP], uint32_t mask) {                                   \
        double d[16][8];                                                                                               \
        for (uint32_t row = 0; row < 16; row++) for (uint32_t column = 0; column < 8; column++) {                      \
            const uint32_t c_lane = 4 * (row % 8) + column / 2;                                                        \
            d[row][column] = ptx_take_f32(ptx_operand(lanes, mask, c_lane, 6 + 2 * (row / 8) + column % 2), 0);        \
            const uint32_t a_first = 4 * (row % 8), b_first = 4 * column;                                              \
            const uint32_t a_lane = a_first + 2 * (ptx_operand(lanes, mask, a_first, 12) & 1) + row / 8;               \
            const uint32_t b_lane = b_first + (ptx_operand(lanes, mask, b_first, 15) & 3);                             \
            const uint32_t a_scales = ptx_operand(lanes, mask, a_lane, 10), b_scales = ptx_operand(lanes, mask, b_lane, 13); \
            const uint32_t a_byte = ptx_operand(lanes, mask, a_lane, 11), b_byte = ptx_operand(lanes, mask, b_lane, 14); \
            for (uint32_t k = 0; k < 64; k++) {                                                                        \
                const uint32_t part = k / (64 / scales), lane = k % 32 / 8, half = k / 32;                             \
                const double   a = ptx_take_e2m1(ptx_operand(lanes, mask, a_first + lane, row / 8 + 2 * half), (int) (k % 8)); \
                const double   b = ptx_take_e2m1(ptx_operand(lanes, mask, b_first + lane, 4 + half), (int) (k % 8));   \
                const double   a_scale = take(a_scales >> 8 * ((a_byte + part) & 3)), b_scale = take(b_scales >> 8 * ((b_byte + part) & 3)); \
                d[row][column] += a * a_scale * (b * b_scale);                                                         \
            }                                                                                                          \
        }                                                                                                              \
        PTX_EACH(l) {                                                                                                  \
            const double * low = &d[l / 4][2 * (l % 4)], * high = &d[l / 4 + 8][2 * (l % 4)];                          \
            PTX_GIVE_F32(lanes[l]->r, low, high, 4)                                                                    \
        }                                                                                                              \
    }
PTX_MMA_SCALED(mxf4_2X, 2, ptx_take_ue8m0)
PTX_MMA_SCALED(mxf4nvf4_4X, 4, ptx_take_ue4m3)

#endif
