// Compiled with AVX-512 (F, BW, DQ, VL, VNNI) where the compiler knows it. With GLMKIT_EMULATE_AVX512 plain C++ does what its
// own instructions do, so that these kernels can be tested on other processors.
#if defined(__AVX512VNNI__) || defined(GLMKIT_EMULATE_AVX512)
#define GLMKIT_AVX512
#endif

#include "kernels_impl.h"

#if defined(GLMKIT_AVX512)
namespace glmkit {
namespace {

constexpr int64_t ASKED = 12;  // queries whose scores are made together

// Keys and values of a head as floats, 32 side by side: of a page's keys, [page][d][32], and of a value, [d / 32][key][32].
void widen_page(const Heads& heads, int64_t page, int64_t size, int64_t width, int64_t length, float* keys, float* values) {
    const char* from = static_cast<const char*>(heads.pages[page]);
    const uint16_t* k = reinterpret_cast<const uint16_t*>(from + heads.key_offset);
    const uint16_t* v = reinterpret_cast<const uint16_t*>(from + heads.value_offset);
    auto put = [](float* out, v16 x) { std::memcpy(out, &x, sizeof x); };
    keys += page * PAGE * size;
    for (int64_t i = 0; i < PAGE * size; i += ROWS) put(keys + i, load16(k + i));
    for (int64_t j = 0; j < PAGE; ++j)
        for (int64_t d = 0; d < width; d += ROWS)
            put(values + (d / 32 * length + page * PAGE + j) * 32 + d % 32, d < size ? load16(v + j * size + d) : v16{});
}

// Turns scores of the first `visible` of `length` keys into their exponentials; returns their sum.
float exponentials(float* row, int64_t visible, int64_t length) {
    for (int64_t j = visible; j < length; ++j) row[j] = -INFINITY;
    v16 most = all16(-INFINITY), total = {};
    for (int64_t j = 0; j < length; j += ROWS) most = max(most, load16(row + j));
    float highest = most[0], sum = 0;
    for (int i = 1; i < ROWS; ++i) highest = std::max(highest, most[i]);
    for (int64_t j = 0; j < length; j += ROWS) {
        v16 weight = load16(row + j) - highest;
        weight = weight < -86.0f ? v16{} : exponential(weight);
        std::memcpy(row + j, &weight, sizeof weight);
        total += weight;
    }
    for (int i = 0; i < ROWS; ++i) sum += total[i];
    return sum;
}

void attend_prompt(const Heads& heads, bool, const float* queries, int64_t stride, int64_t count, int64_t visible,
                   int64_t head_size, float scale, float* context, int64_t context_stride) {
    static_assert(PAGE == 32);
    int64_t size = padded(head_size, 16), width = padded(size, 32), length = padded(visible, PAGE);
    auto* keys = reinterpret_cast<float*>(memory(4 * (length * (size + width) + ASKED * length)));
    float *values = keys + length * size, *scores = values + length * width;
    for (int64_t page = 0; page < length / PAGE; ++page) widen_page(heads, page, size, width, length, keys, values);
    by_rows<ASKED>(count, [&](int64_t n, auto N) {
        const float* query = queries + n * stride;
        for (int64_t j = 0; j < length; j += 32) {
            v16 sums[N][2] = {};
            add_products<N>(query, stride, keys + j * size, 16, 32, head_size, sums);
            for (int i = 0; i < N; ++i) {
                sums[i][0] *= scale, sums[i][1] *= scale;
                std::memcpy(scores + i * length + j, sums[i], sizeof sums[i]);
            }
        }
        float factors[N];
        for (int i = 0; i < N; ++i) factors[i] = 1 / exponentials(scores + i * length, visible, length);
        for (int64_t d = 0; d < head_size; d += 32) {
            v16 sums[N][2] = {};
            add_products<N>(scores, length, values + d * length, 16, 32, visible, sums);
            for (int i = 0; i < N; ++i) {
                sums[i][0] *= factors[i], sums[i][1] *= factors[i];
                std::memcpy(context + (n + i) * context_stride + d, sums[i], size_t(std::min<int64_t>(32, head_size - d)) * 4);
            }
        }
    });
}

}  // namespace
}  // namespace glmkit
#endif

const glmkit::Kernels* glmkit::avx512_kernels() {
#if defined(GLMKIT_AVX512)
    static const Kernels kernels{"avx512", prepare, multiply, normalize, attend, to_half, nullptr, attend_prompt};
    return &kernels;
#else
    return nullptr;
#endif
}
