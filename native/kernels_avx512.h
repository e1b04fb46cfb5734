// What AVX-512 does besides kernels_impl.h: attention of a prompt. Compiled once with BF16 and once without; like all of
// kernels_impl.h it is in an anonymous namespace.
#pragma once

#define GLMKIT_AVX512
#include "kernels_impl.h"

namespace glmkit {
namespace {

// ---- attention of a prompt: products of floats, or of pairs of bfloat16 ----

constexpr int64_t ASKED = 12;  // queries whose scores are made together

// Sixteen numbers of a row and of the next, side by side; floats: one row, then the other.
inline void put_rows(float* out, int64_t next, v16 x, v16 y) { put(out, x), put(out + next, y); }

#if defined(__AVX512BF16__)
inline __m256i rounded(v16 x) { return (__m256i)_mm512_cvtneps_pbh((__m512)x); }

inline void put(uint16_t* out, v16 x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), rounded(x)); }

inline void put_rows(uint16_t* out, int64_t, v16 x, v16 y) {
    i16 both = (i16)_mm512_cvtepu16_epi32(rounded(x)) | (i16)_mm512_cvtepu16_epi32(rounded(y)) << 16;
    std::memcpy(out, &both, sizeof both);
}

// As of floats (kernels_impl.h); a row's numbers are multiplied by pairs, and so do columns lie.
template <int N>
void add_products(const uint16_t* x, int64_t stride, const uint16_t* columns, int64_t next, int64_t step, int64_t count,
                  Sums sums) {
    v16 acc[N][2];
    sums.read(acc);
    for (int64_t c = 0; c < count; c += 2, columns += 2 * step) {
        __m512bh one = (__m512bh)load_bytes(columns), two = (__m512bh)load_bytes(columns + 2 * next);
#pragma GCC unroll 16
        for (int n = 0; n < N; ++n) {
            __m512bh pair = (__m512bh)all_four(reinterpret_cast<const int8_t*>(x + n * stride + c));
            acc[n][0] = (v16)_mm512_dpbf16_ps((__m512)acc[n][0], one, pair);
            acc[n][1] = (v16)_mm512_dpbf16_ps((__m512)acc[n][1], two, pair);
        }
    }
    sums.write(acc);
}
#endif

// The keys and values of a page, 32 side by side: [page][d][32] and [d / 32][key][32], of bfloat16 two rows at a time.
template <typename Number>
void take_page(const Heads& heads, int64_t page, int64_t visible, int64_t size, int64_t width, Number* keys, Number* values) {
    const char* from = static_cast<const char*>(heads.pages[page]);
    const uint16_t* k = reinterpret_cast<const uint16_t*>(from + heads.key_offset);
    const uint16_t* v = reinterpret_cast<const uint16_t*>(from + heads.value_offset);
    constexpr int64_t EACH = 4 / sizeof(Number);
    int64_t length = padded(visible, PAGE);
    keys += page * PAGE * size;
    for (int64_t d = 0; d < size; d += 2)
        for (int64_t j = 0; j < PAGE; j += ROWS)
            put_rows(keys + d * PAGE + j * EACH, PAGE, wide(k + d * PAGE + j), wide(k + (d + 1) * PAGE + j));
    for (int64_t j = 0; j < PAGE; j += 2)
        for (int64_t d = 0; d < width; d += ROWS) {
            Number* out = values + (d / 32 * length + page * PAGE + j) * 32 + d % 32 * EACH;
            bool first = d < size && page * PAGE + j < visible, second = d < size && page * PAGE + j + 1 < visible;
            put_rows(out, 32, first ? wide(v + j * size + d) : v16{}, second ? wide(v + (j + 1) * size + d) : v16{});
        }
}

// Sixteen numbers, or as many as there are.
inline void copy_some(void* to, const void* from, int64_t count) {
    if (count >= ROWS)
        std::memcpy(to, from, ROWS * 4);
    else
        std::memcpy(to, from, size_t(count) * 4);
}

template <typename Number>
void attend_prompt_as(const Heads& heads, const float* queries, int64_t stride, int64_t count, int64_t visible,
                      int64_t head_size, float scale, float* context, int64_t context_stride) {
    static_assert(PAGE == 32);
    int64_t size = padded(head_size, 16), width = padded(size, 32), length = padded(visible, PAGE);
    auto* scores = reinterpret_cast<float*>(memory(4 * (ASKED * (2 * length + size) + length * (size + width))));
    auto* weights = reinterpret_cast<Number*>(scores + ASKED * length);
    Number *query = weights + ASKED * length, *keys = query + ASKED * size, *values = keys + length * size;
    for (int64_t page = 0; page < length / PAGE; ++page) take_page(heads, page, visible, size, width, keys, values);
    by_rows<ASKED>(count, [&](int64_t n, auto N) {
        for (int i = 0; i < N; ++i)
            for (int64_t d = 0; d < size; d += ROWS) {
                v16 x = {};
                copy_some(&x, queries + (n + i) * stride + d, head_size - d);
                put(query + i * size + d, x * scale);
            }
        for (int64_t j = 0; j < length; j += 32)
            add_products<N>(query, size, keys + j * size, 16, 32, size, Sums{scores + j, length});
        float factors[N];
        for (int i = 0; i < N; ++i)
            factors[i] = 1 / exponentials(scores + i * length, visible, length,
                                          [&](int64_t j, v16 weight) { put(weights + i * length + j, weight); });
        for (int64_t d = 0; d < head_size; d += 32) {
            v16 sums[N][2];
            add_products<N>(weights, length, values + d * length, 16, 32, length, Sums{reinterpret_cast<float*>(sums), 2 * ROWS});
            for (int i = 0; i < N; ++i)
                for (int b = 0; b < 2 && d + b * ROWS < head_size; ++b) {
                    v16 y = sums[i][b] * factors[i];
                    copy_some(context + (n + i) * context_stride + d + b * ROWS, &y, head_size - d - b * ROWS);
                }
        }
    });
}

#if defined(__AVX512BF16__)
constexpr const char* NAME = "avx512bf16";
using Rough = uint16_t;  // what numbers are multiplied as, unless exactly
#else
constexpr const char* NAME = "avx512";
using Rough = float;
#endif

void attend_prompt(const Heads& heads, bool exact, const float* queries, int64_t stride, int64_t count, int64_t visible,
                   int64_t head_size, float scale, float* context, int64_t context_stride) {
    auto attend = exact ? attend_prompt_as<float> : attend_prompt_as<Rough>;
    attend(heads, queries, stride, count, visible, head_size, scale, context, context_stride);
}

// Of a matrix of whole numbers: what it reads can be prepared where it is made.
bool tiled(const Matrix& m, int64_t rows) { return m.integer() && many(m, rows); }

const Kernels kernels{NAME, prepare, multiply, normalize, attend, to_half, peak, tiled, attend_prompt};

}  // namespace
}  // namespace glmkit
