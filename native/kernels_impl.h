// The functions of `Kernels`, compiled once for each instruction set; everything here is in an anonymous namespace, so
// that the linker never takes one instruction set's copy for another's.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>

#include "kernels.h"

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace glmkit {
namespace {

typedef float v8 __attribute__((vector_size(32)));
typedef int32_t i8 __attribute__((vector_size(32)));

inline v8 load(const float* p) {
    v8 x;
    std::memcpy(&x, p, sizeof x);
    return x;
}

template <typename V>
inline void put(float* p, V x) {
    std::memcpy(p, &x, sizeof x);
}

inline v8 all(float x) { return v8{x, x, x, x, x, x, x, x}; }

inline v8 load(const uint16_t* p) {
#if defined(__AVX2__)
    return (v8)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
    i8 bits;
    for (int i = 0; i < 8; ++i) bits[i] = p[i];
    // A float32 with the same exponent and significand is 2^112 times too small; infinities and what is no number are not.
    i8 magnitude = (i8)((v8)((bits & 0x7fff) << 13) * 0x1p112f), beyond = (bits & 0x7c00) == 0x7c00;
    return (v8)(magnitude | (beyond & 0x7f800000) | (bits & 0x8000) << 16);
#endif
}

#if defined(GLMKIT_AVX512)
typedef float v16 __attribute__((vector_size(64)));
using Wide = v16;
#elif defined(GLMKIT_NEON)
typedef float v4 __attribute__((vector_size(16)));
using Wide = v4;
#else
using Wide = v8;
#endif
constexpr int WIDTH = sizeof(Wide) / sizeof(float);
typedef int32_t Wholes __attribute__((vector_size(4 * WIDTH)));
typedef int8_t Bytes __attribute__((vector_size(WIDTH)));

// As many numbers as a vector holds.
inline Wide wide(const float* p) {
    Wide x;
    std::memcpy(&x, p, sizeof x);
    return x;
}

inline Wide wide(const uint16_t* p) {
#if defined(GLMKIT_AVX512) && defined(__AVX512F__)
    return (Wide)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(GLMKIT_NEON) && defined(__aarch64__)
    return (Wide)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
#elif defined(GLMKIT_NEON)
    return Wide{half_to_float(p[0]), half_to_float(p[1]), half_to_float(p[2]), half_to_float(p[3])};
#else
    Wide x;
    for (int i = 0; i < WIDTH; i += 8) {
        v8 some = load(p + i);
        std::memcpy(reinterpret_cast<float*>(&x) + i, &some, sizeof some);
    }
    return x;
#endif
}

// As many bytes as whole numbers.
inline Wholes wholes(const uint8_t* p) {
#if defined(GLMKIT_AVX512) && defined(__AVX512F__)
    return (Wholes)_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#elif defined(__AVX2__) && !defined(GLMKIT_AVX512)
    return (Wholes)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
#else
    Wholes x;
    for (int i = 0; i < WIDTH; ++i) x[i] = p[i];
    return x;
#endif
}

inline void fetch(const void* p) { __builtin_prefetch(p); }
inline void soon(const void* p) { __builtin_prefetch(p, 0, 2); }  // into the second cache

template <typename V>
inline V max(V x, V y) {
    return x > y ? x : y;
}
template <typename V>
inline V min(V x, V y) {
    return x < y ? x : y;
}
// One number of all: the halves of a vector are put together, the halves of that, and so on.
template <typename V, typename Fold>
inline auto folded(V x, const Fold& fold) {
    if constexpr (sizeof(V) == 2 * sizeof x[0]) {
        return fold(x[0], x[1]);
    } else {
        typedef std::remove_reference_t<decltype(x[0])> Half __attribute__((vector_size(sizeof(V) / 2)));
        Half halves[2];
        std::memcpy(halves, &x, sizeof x);
        return folded(fold(halves[0], halves[1]), fold);
    }
}

template <typename V>
inline auto sum(V x) {
    return folded(x, [](auto y, auto z) { return y + z; });
}

inline float largest(Wide x) {
    return folded(x, [](auto y, auto z) { return max(y, z); });
}

constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23: adding it rounds a number below 2^22 to the nearest whole one
constexpr int32_t ROUND_BITS = 0x4b400000;

// exp(x) of -87 <= x <= 88, as 2^n, which is added to the bits, times the minimax polynomial of 2^r, |r| <= 1/2. Relative error
// below 7e-7 for |x| <= 10 and 4e-6 for all, most of it of x times log2(e); half of that where products are not rounded.
template <typename V>
inline V exponential(V x) {
    V rounded = x * 1.44269504088896341f + ROUND;
    V r = x * 1.44269504088896341f - (rounded - ROUND);
    V p = 1.3264720366e-3f * r + 9.6715130223e-3f;
    p = p * r + 5.5507337777e-2f;
    p = p * r + 2.4022242077e-1f;
    p = p * r + 6.9314697756e-1f;
    p = p * r + 1.0f;
    typedef decltype(x < x) Whole;
    return (V)((Whole)p + ((Whole)rounded << 23));
}

// erf(x), Abramowitz and Stegun 7.1.26; absolute error below 1.5e-7.
template <typename V>
inline V error_function(V x) {
    V magnitude = max(x, -x);
    V t = 1.0f / (1.0f + 0.3275911f * magnitude);
    V p = 1.061405429f * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    V y = 1.0f - p * t * exponential(max(-magnitude * magnitude, V{} - 87.0f));
    return x < 0 ? -y : y;
}

// Several vectors together: none waits for the others' divisions.
template <typename V, int N>
inline void activate(V (&y)[N], Activation kind) {
    auto each = [&](const auto& work) {
#pragma GCC unroll 8
        for (int i = 0; i < N; ++i) y[i] = work(y[i]);
    };
    switch (kind) {
        case Activation::gelu: return each([](V x) { return 0.5f * x * (1.0f + error_function(x * 0.70710678118654752f)); });
        case Activation::gelu_tanh:  // 0.5 x (1 + tanh(u)) = x / (1 + exp(-2 u))
            return each([](V x) {
                V u = -1.5957691216057308f * (x + 0.044715f * x * x * x);
                return x / (1.0f + exponential(max(min(u, V{} + 88.0f), V{} - 87.0f)));
            });
        case Activation::relu: return each([](V x) { return max(x, V{}); });
    }
}

constexpr int64_t AHEAD = 6 * 1024;  // bytes of weights that are fetched before they are wanted
constexpr int64_t GROUPS_AHEAD = AHEAD / (GROUP4 * ROWS / 2);  // of int4
constexpr int OFFSET8 = 128, OFFSET4 = 16;  // added to weights where they have to be unsigned

// Memory of this thread, from a cache line on; what was in it is lost.
char* memory(int64_t bytes) {
    struct Free {
        void operator()(char* p) const { ::operator delete(p, std::align_val_t(64)); }
    };
    thread_local std::unique_ptr<char, Free> kept;
    thread_local int64_t size = 0;
    if (size < bytes) {
        kept.reset();
        size = 0;
        kept.reset(static_cast<char*>(::operator new(size_t(bytes), std::align_val_t(64))));
        size = bytes;
    }
    return kept.get();
}

// ---- one block of 16 rows times N rows of activations: acc [N][16] ----

// Where a block begins, and the activations that it is multiplied with.
template <typename Number>
struct Floats {
    int64_t columns;
    const Number* w;
    const float* x;
};

// Where the codes of a block of bfloat16 begin; `c` columns further on they are at c * CODED / 8.
inline const uint8_t* codes_of(const Matrix& m, int64_t block) {
    return static_cast<const uint8_t*>(m.data) + block * m.padded_columns() / 8 * CODED;
}

// The high bytes of bfloat16 of codes (low nibbles; what else is in them does not count).
template <typename Bytes>
inline Bytes high_bytes(Bytes codes, uint8_t first) {
    Bytes place = codes & 7;
    return ((place + uint8_t(first - 1)) & (Bytes)(place > 0)) | (codes & 8) << 4;
}

// All codes, again and again.
constexpr struct AllCodes {
    uint8_t codes[64] = {};

    constexpr AllCodes() {
        for (int i = 0; i < 64; ++i) codes[i] = uint8_t(i % 16);
    }
} ALL_CODES;

template <typename Byte>
struct Integers {
    int64_t columns, groups;
    const Byte* w;
    const int8_t* x;
    const float *scales, *sums;
};

struct Grids {  // of int4 weights
    const uint16_t* w_scales;
    const uint8_t* zeros;
};

template <typename Number>
inline Floats<Number> floats(const Matrix& m, int64_t block, const Rows& rows, int64_t first) {
    int64_t columns = m.padded_columns();
    return {columns, static_cast<const Number*>(m.data) + block * columns * ROWS, rows.values + first * columns};
}

template <typename Byte>
inline Integers<Byte> integers(const Matrix& m, int64_t block, const Rows& rows, int64_t first) {
    int64_t columns = m.padded_columns(), groups = columns / m.group();
    int64_t bytes = columns * ROWS / (m.format == Format::int4 ? 2 : 1);
    return {columns, groups, static_cast<const Byte*>(m.data) + block * bytes, rows.quantized + first * columns,
            rows.scales + first * groups, rows.sums + first * groups};
}

inline Grids grids(const Matrix& m, int64_t block) {
    int64_t numbers = block * (m.padded_columns() / GROUP4) * ROWS;
    return {static_cast<const uint16_t*>(m.scales) + numbers, m.zeros + numbers};
}

#if defined(GLMKIT_AVX512)

typedef int32_t i16 __attribute__((vector_size(64)));
typedef uint8_t u64 __attribute__((vector_size(64)));

constexpr int MOST = 8;       // rows of activations that one block is multiplied with together
constexpr int MOST_FLOATS = MOST;  // those of a block of float32 or float16
constexpr int MOST_CODED = MOST;  // up to so many meet the codes of bfloat16; for more they are decoded first
constexpr int PAIR_BYTES = 32 * 1024;  // of two blocks, that stay in the first cache while rows of activations go by
constexpr int64_t SOME = 48;           // such rows, whose sums stay there too
constexpr int64_t BLOCKS = 4;          // that all rows of activations are multiplied with before the next

inline v16 all16(float x) { return v16{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }

inline u64 load_bytes(const void* p) {
    u64 x;
    std::memcpy(&x, p, sizeof x);
    return x;
}

// Sixteen bytes as floats.
inline v16 wide(const uint8_t* p) {
#if defined(__AVX512F__)
    return (v16)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#else
    float numbers[ROWS];
    for (int r = 0; r < ROWS; ++r) numbers[r] = p[r];
    return wide(numbers);
#endif
}

// Adds to 16 sums four products each, of unsigned bytes with four signed ones, which repeat.
inline i16 add_products(i16 sums, u64 bytes, i16 fours) {
#if defined(__AVX512VNNI__)
    return (i16)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)bytes, (__m512i)fours);
#else
    int8_t four[4];
    std::memcpy(four, &fours, 4);
    for (int r = 0; r < 64; ++r) sums[r / 4] += bytes[r] * four[r % 4];
    return sums;
#endif
}

inline i16 all_four(const int8_t* four) {
    int32_t x;
    std::memcpy(&x, four, 4);
    return i16{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
}

// Sixteen bytes, each four times.
inline u64 four_times(const uint8_t* p) {
#if defined(__AVX512BW__)
    const __m512i places = _mm512_set_epi32(0x0f0f0f0f, 0x0e0e0e0e, 0x0d0d0d0d, 0x0c0c0c0c, 0x0b0b0b0b, 0x0a0a0a0a, 0x09090909,
                                            0x08080808, 0x07070707, 0x06060606, 0x05050505, 0x04040404, 0x03030303, 0x02020202,
                                            0x01010101, 0);
    __m512i sixteen = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return (u64)_mm512_shuffle_epi8(sixteen, places);
#else
    uint8_t bytes[64];
    for (int i = 0; i < 64; ++i) bytes[i] = p[i / 4];
    return load_bytes(bytes);
#endif
}

template <int N, typename Number>
void tile_floats(const Matrix& m, int64_t block, const Rows& rows, int64_t first, float (*out)[ROWS]) {
    auto [columns, w, x] = floats<Number>(m, block, rows, first);
    v16 acc[N] = {};
    for (int64_t c = 0; c < columns; ++c, w += ROWS) {
        v16 weights = wide(w);
        fetch(w + 2048 / sizeof *w);
        for (int n = 0; n < N; ++n) acc[n] += weights * x[n * columns + c];
    }
    std::memcpy(out, acc, sizeof acc);
}

struct Codes {
    u64 of_all;  // the high bytes of the 16 codes, four times

    explicit Codes(uint8_t first) : of_all(high_bytes(load_bytes(ALL_CODES.codes), first)) {}
};

using Pairs = i16[2];  // four columns, [column / 2][16][2]

// The first four of eight columns, or the last.
inline void decode(const uint8_t* w, int half, const Codes& of, Pairs& pairs) {
    u64 low = load_bytes(w + 64 * half), codes = load_bytes(w + 128), places = half ? codes >> 4 : codes & uint8_t(15);
#if defined(__AVX512BW__)
    __m512i high = _mm512_shuffle_epi8((__m512i)of.of_all, (__m512i)places);
    pairs[0] = (i16)_mm512_unpacklo_epi8((__m512i)low, high);
    pairs[1] = (i16)_mm512_unpackhi_epi8((__m512i)low, high);
#else
    uint8_t bytes[2][64];
    for (int i = 0; i < 64; ++i) {
        uint8_t* both = bytes[i / 8 % 2] + i / 16 * 16 + i % 8 * 2;
        both[0] = low[i], both[1] = of.of_all[places[i]];
    }
    for (int pair = 0; pair < 2; ++pair) pairs[pair] = (i16)load_bytes(bytes[pair]);
#endif
}

template <int N, typename Block>
void tile_coded(Block block, int64_t columns, const float* x, float (*out)[ROWS]) {
    v16 acc[N] = {}, odd_acc[N] = {};
    block.each(columns, [&](int64_t c, const Pairs& pairs) {
#pragma GCC unroll 2
        for (int pair = 0; pair < 2; ++pair) {
            v16 even = (v16)(pairs[pair] << 16), odd = (v16)(pairs[pair] & int32_t(0xffff0000));
            for (int n = 0; n < N; ++n) {
                acc[n] += even * x[n * columns + c + 2 * pair];
                odd_acc[n] += odd * x[n * columns + c + 2 * pair + 1];
            }
        }
    });
    for (int n = 0; n < N; ++n) acc[n] += odd_acc[n];
    std::memcpy(out, acc, sizeof acc);
}

template <int N>
void tile_int8(const Matrix& m, int64_t block, const Rows& rows, int64_t first, float (*out)[ROWS]) {
    auto [columns, groups, w, x, scales, sums] = integers<int8_t>(m, block, rows, first);
    v16 acc[N] = {};
    for (int64_t g = 0; g < groups; ++g) {
        i16 dot[N] = {};
        for (int64_t c = g * GROUP8; c < (g + 1) * GROUP8; c += 4, w += 4 * ROWS) {
            u64 bytes = load_bytes(w) ^ uint8_t(OFFSET8);  // w + 128, unsigned: 128 times the activations' sum is too much then
            fetch(w + 2048);
            for (int n = 0; n < N; ++n) dot[n] = add_products(dot[n], bytes, all_four(x + n * columns + c));
        }
        for (int n = 0; n < N; ++n)
            acc[n] += (__builtin_convertvector(dot[n], v16) - sums[n * groups + g]) * scales[n * groups + g];
    }
    v16 of_rows = wide(static_cast<const float*>(m.scales) + block * ROWS);
    for (int n = 0; n < N; ++n) acc[n] *= of_rows;
    std::memcpy(out, acc, sizeof acc);
}

template <int N>
void tile_int4(const Matrix& m, int64_t block, const Rows& rows, int64_t first, float (*out)[ROWS]) {
    auto [columns, groups, w, x, scales, sums] = integers<uint8_t>(m, block, rows, first);
    auto [w_scales, zeros] = grids(m, block);
    v16 acc[N] = {};
    for (int64_t g = 0; g < groups; ++g, w_scales += ROWS, zeros += ROWS) {
        i16 dot[N] = {}, other[N] = {};  // with few rows a second chain hides the latency of the first
#pragma GCC unroll 4
        for (int64_t c = 0; c < GROUP4; c += 8, w += 4 * ROWS) {
            u64 bytes = load_bytes(w);
            fetch(w + AHEAD);
            u64 one = bytes & uint8_t(15), two = bytes >> 4;
            for (int n = 0; n < N; ++n) {
                const int8_t* four = x + n * columns + g * GROUP4 + c;
                i16& second = N <= 2 ? other[n] : dot[n];
                dot[n] = add_products(dot[n], one, all_four(four));
                second = add_products(second, two, all_four(four + 4));
            }
        }
        for (int n = 0; n < N; ++n) dot[n] += other[n];
        fetch(w_scales + GROUPS_AHEAD * ROWS);
        fetch(zeros + GROUPS_AHEAD * ROWS);
        v16 scale = wide(w_scales), zero = wide(zeros);
        for (int n = 0; n < N; ++n)
            acc[n] += (__builtin_convertvector(dot[n], v16) - zero * sums[n * groups + g]) *
                      (scale * scales[n * groups + g]);
    }
    std::memcpy(out, acc, sizeof acc);
}

#elif defined(__AVX2__)

constexpr int MOST = 4, MOST_FLOATS = 6, MOST_CODED = 2 * MOST;  // two readings of codes take as long as writing and reading what they stand for

inline __m256i load_bytes(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

inline __m256i broadcast4(const int8_t* p) {
    int32_t four;
    std::memcpy(&four, p, 4);
    return _mm256_set1_epi32(four);
}

template <int N, typename Number>
void tile_floats(const Matrix& m, int64_t block, const Rows& rows, int64_t first, float (*out)[ROWS]) {
    auto [columns, w, x] = floats<Number>(m, block, rows, first);
    v8 acc[N][2] = {};
    for (int64_t c = 0; c < columns; ++c, w += ROWS) {
        v8 low = load(w), high = load(w + 8);
        fetch(w + 2048 / sizeof *w);
        for (int n = 0; n < N; ++n) {
            v8 value = all(x[n * columns + c]);
            acc[n][0] += low * value;
            acc[n][1] += high * value;
        }
    }
    std::memcpy(out, acc, sizeof acc);
}

struct Codes {
    typedef uint8_t Bytes __attribute__((vector_size(32)));
    __m256i of_all;  // the high bytes of the 16 codes, twice

    explicit Codes(uint8_t first) : of_all((__m256i)high_bytes((Bytes)load_bytes(ALL_CODES.codes), first)) {}
};

using Pairs = __m256i[2][2];  // four columns, [column / 2][16][2]

// The first four of eight columns, or the last.
inline void decode(const uint8_t* w, int half, const Codes& of, Pairs& pairs) {
    const __m256i nibble = _mm256_set1_epi8(15);
#pragma GCC unroll 2
    for (int some = 0; some < 2; ++some) {  // eight rows
        __m256i low = load_bytes(w + 64 * half + 32 * some), codes = load_bytes(w + 128 + 32 * some);
        __m256i places = _mm256_and_si256(half ? _mm256_srli_epi16(codes, 4) : codes, nibble);
        __m256i high = _mm256_shuffle_epi8(of.of_all, places);
        pairs[0][some] = _mm256_unpacklo_epi8(low, high);
        pairs[1][some] = _mm256_unpackhi_epi8(low, high);
    }
}

// acc and odd_acc [N][2] += two columns times two numbers of each row of activations.
template <int N>
[[gnu::always_inline]] inline void add_pair(__m256i low, __m256i high, const float* x, int64_t columns, v8 (&acc)[N][2],
                                            v8 (&odd_acc)[N][2]) {
    const __m256i odd = _mm256_set1_epi32(int32_t(0xffff0000));
    v8 even_low = (v8)_mm256_slli_epi32(low, 16), even_high = (v8)_mm256_slli_epi32(high, 16);
    v8 odd_low = (v8)_mm256_and_si256(low, odd), odd_high = (v8)_mm256_and_si256(high, odd);
    for (int n = 0; n < N; ++n) {
        v8 even_value = all(x[n * columns]), odd_value = all(x[n * columns + 1]);
        acc[n][0] += even_low * even_value;
        acc[n][1] += even_high * even_value;
        v8* other = N <= 2 ? odd_acc[n] : acc[n];  // with few rows a second chain hides the latency of the first
        other[0] += odd_low * odd_value;
        other[1] += odd_high * odd_value;
    }
}

template <int N, typename Block>
void tile_coded(Block block, int64_t columns, const float* x, float (*out)[ROWS]) {
    v8 acc[N][2] = {}, odd_acc[N][2] = {};
    block.each(columns, [&](int64_t c, const Pairs& pairs) {
#pragma GCC unroll 2
        for (int pair = 0; pair < 2; ++pair) add_pair<N>(pairs[pair][0], pairs[pair][1], x + c + 2 * pair, columns, acc, odd_acc);
    });
    for (int n = 0; n < N; ++n)
        for (int half = 0; half < 2; ++half) put(out[n] + 8 * half, acc[n][half] + odd_acc[n][half]);
}

// Meanwhile the codes of the `next` block are fetched.
template <int N>
void tile_decoded(const uint16_t* w, const uint8_t* next, int64_t columns, const float* x, float (*out)[ROWS]) {
    v8 acc[N][2] = {}, odd_acc[N][2] = {};
    for (int64_t c = 0; c < columns; c += 2, w += 2 * ROWS) {
        soon(next + c * CODED / 8);
        add_pair<N>(load_bytes(w), load_bytes(w + ROWS), x + c, columns, acc, odd_acc);
    }
    for (int n = 0; n < N; ++n)
        for (int half = 0; half < 2; ++half) put(out[n] + 8 * half, acc[n][half] + odd_acc[n][half]);
}

#if defined(__AVXVNNI__)

// Signed bytes whose products with others are added up.
struct Factors {
    static constexpr bool too_much = true;  // 128 times the others' sum, as weights are unsigned and 128 too much
    __m256i bytes;

    explicit Factors(__m256i w) : bytes(_mm256_xor_si256(w, _mm256_set1_epi8(-OFFSET8))) {}
    __m256i add_to(__m256i sums, __m256i fours) const { return _mm256_dpbusd_avx_epi32(sums, bytes, fours); }
};

// Adds products of weights of 4 bits; the sums are those of `whole`.
inline __m256i add_nibbles(__m256i sums, __m256i nibbles, __m256i fours) { return _mm256_dpbusd_avx_epi32(sums, nibbles, fours); }
inline __m256i whole(__m256i sums) { return sums; }

#else

struct Factors {
    static constexpr bool too_much = false;
    __m256i w, size;

    explicit Factors(__m256i bytes) : w(bytes), size(_mm256_abs_epi8(bytes)) {}
    // |w| * (x with w's sign): two products are at most 2 * 127 * 127 and do not overflow 16 bits.
    __m256i add_to(__m256i sums, __m256i fours) const {
        __m256i pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(fours, w));
        return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
};

// Adds products of weights of 4 bits; 16 bits are enough for a group: 8 times two products of at most 15 * 127.
inline __m256i add_nibbles(__m256i sums, __m256i nibbles, __m256i fours) {
    return _mm256_add_epi16(sums, _mm256_maddubs_epi16(nibbles, fours));
}
inline __m256i whole(__m256i sums) { return _mm256_madd_epi16(sums, _mm256_set1_epi16(1)); }

#endif

template <int N>
void tile_int8(const Matrix& m, int64_t block, const Rows& rows, int64_t first, float (*out)[ROWS]) {
    auto [columns, groups, w, x, scales, sums] = integers<int8_t>(m, block, rows, first);
    v8 acc[N][2] = {};
    for (int64_t g = 0; g < groups; ++g) {
        __m256i dot[N][2];
        for (int n = 0; n < N; ++n) dot[n][0] = dot[n][1] = _mm256_setzero_si256();
#pragma GCC unroll 4
        for (int64_t c = g * GROUP8; c < (g + 1) * GROUP8; c += 4, w += 4 * ROWS) {
            Factors low(load_bytes(w)), high(load_bytes(w + 32));
            fetch(w + 2048);
            for (int n = 0; n < N; ++n) {
                __m256i fours = broadcast4(x + n * columns + c);
                dot[n][0] = low.add_to(dot[n][0], fours);
                dot[n][1] = high.add_to(dot[n][1], fours);
            }
        }
        for (int n = 0; n < N; ++n) {
            v8 scale = all(scales[n * groups + g]), more = all(Factors::too_much ? sums[n * groups + g] : 0);
            for (int half = 0; half < 2; ++half) acc[n][half] += ((v8)_mm256_cvtepi32_ps(dot[n][half]) - more) * scale;
        }
    }
    const float* of_rows = static_cast<const float*>(m.scales) + block * ROWS;
    for (int n = 0; n < N; ++n)
        for (int half = 0; half < 2; ++half) put(out[n] + 8 * half, acc[n][half] * load(of_rows + 8 * half));
}

template <int N>
void tile_int4(const Matrix& m, int64_t block, const Rows& rows, int64_t first, float (*out)[ROWS]) {
    auto [columns, groups, w, x, scales, sums] = integers<uint8_t>(m, block, rows, first);
    auto [w_scales, zeros] = grids(m, block);
    const __m256i nibble = _mm256_set1_epi8(15);
    v8 acc[N][2] = {};
    for (int64_t g = 0; g < groups; ++g, w_scales += ROWS, zeros += ROWS) {
        __m256i dot[N][2];
        for (int n = 0; n < N; ++n) dot[n][0] = dot[n][1] = _mm256_setzero_si256();
#pragma GCC unroll 4
        for (int64_t c = g * GROUP4; c < (g + 1) * GROUP4; c += 8, w += 4 * ROWS) {
            __m256i low = load_bytes(w), high = load_bytes(w + 32);
            fetch(w + 1024);
            __m256i low1 = _mm256_and_si256(low, nibble), high1 = _mm256_and_si256(high, nibble);
            __m256i low2 = _mm256_and_si256(_mm256_srli_epi16(low, 4), nibble);
            __m256i high2 = _mm256_and_si256(_mm256_srli_epi16(high, 4), nibble);
            for (int n = 0; n < N; ++n) {
                __m256i one = broadcast4(x + n * columns + c), two = broadcast4(x + n * columns + c + 4);
                dot[n][0] = add_nibbles(add_nibbles(dot[n][0], low1, one), low2, two);
                dot[n][1] = add_nibbles(add_nibbles(dot[n][1], high1, one), high2, two);
            }
        }
        for (int half = 0; half < 2; ++half) {
            v8 scale = load(w_scales + 8 * half);
            __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(zeros + 8 * half));
            v8 zero = (v8)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
            for (int n = 0; n < N; ++n) {
                v8 product = (v8)_mm256_cvtepi32_ps(whole(dot[n][half]));
                acc[n][half] += (product - zero * sums[n * groups + g]) * (scale * scales[n * groups + g]);
            }
        }
    }
    std::memcpy(out, acc, sizeof acc);
}

#elif defined(GLMKIT_NEON)

typedef int32_t i4 __attribute__((vector_size(16)));
typedef int8_t Signed __attribute__((vector_size(16)));
typedef uint8_t Unsigned __attribute__((vector_size(16)));

constexpr int MOST = 4, MOST_FLOATS = MOST, MOST_CODED = 2 * MOST;
constexpr int PARTS = 4;  // vectors of 16 rows' numbers

template <typename V>
inline V load_bytes(const void* p) {
    V x;
    std::memcpy(&x, p, sizeof x);
    return x;
}

// Calls work with 0, 1, 2 and 3, as constants.
template <typename Work>
[[gnu::always_inline]] inline void each_of_four(const Work& work) {
    work(std::integral_constant<int, 0>());
    work(std::integral_constant<int, 1>());
    work(std::integral_constant<int, 2>());
    work(std::integral_constant<int, 3>());
}

// Adds to four sums four products each, of bytes with the LANE-th four of others, which repeat.
template <int LANE>
inline i4 add_products(i4 sums, Signed bytes, Signed others) {
#if defined(__ARM_FEATURE_DOTPROD)
    return (i4)vdotq_laneq_s32((int32x4_t)sums, (int8x16_t)bytes, (int8x16_t)others, LANE);
#elif defined(__aarch64__)
    int8x16_t four = (int8x16_t)vdupq_laneq_s32((int32x4_t)others, LANE);
    int16x8_t low = vmull_s8(vget_low_s8((int8x16_t)bytes), vget_low_s8(four)), high = vmull_high_s8((int8x16_t)bytes, four);
    return (i4)vpadalq_s16((int32x4_t)sums, vpaddq_s16(low, high));  // two products are at most 2 * 127 * 127
#else
    for (int r = 0; r < 16; ++r) sums[r / 4] += bytes[r] * others[LANE * 4 + r % 4];
    return sums;
#endif
}

// Of 16 bytes those that places below 16 say.
inline Unsigned looked_up(Unsigned bytes, Unsigned places) {
#if defined(__aarch64__)
    return (Unsigned)vqtbl1q_u8((uint8x16_t)bytes, (uint8x16_t)places);
#else
    Unsigned found;
    for (int i = 0; i < 16; ++i) found[i] = bytes[places[i]];
    return found;
#endif
}

// The bytes of two vectors by turns: of their first halves, and of their second ones.
inline void interleave(Unsigned even, Unsigned odd, i4& first, i4& second) {
#if defined(__aarch64__)
    first = (i4)vzip1q_u8((uint8x16_t)even, (uint8x16_t)odd), second = (i4)vzip2q_u8((uint8x16_t)even, (uint8x16_t)odd);
#else
    uint8_t bytes[32];
    for (int i = 0; i < 16; ++i) bytes[2 * i] = even[i], bytes[2 * i + 1] = odd[i];
    first = load_bytes<i4>(bytes), second = load_bytes<i4>(bytes + 16);
#endif
}

// Sixteen bytes as floats.
inline void widen(const uint8_t* p, v4 (&floats)[PARTS]) {
#if defined(__aarch64__)
    uint8x16_t bytes = vld1q_u8(p);
    uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_high_u8(bytes);
    floats[0] = (v4)vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))), floats[1] = (v4)vcvtq_f32_u32(vmovl_high_u16(low));
    floats[2] = (v4)vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))), floats[3] = (v4)vcvtq_f32_u32(vmovl_high_u16(high));
#else
    float numbers[ROWS];
    for (int r = 0; r < ROWS; ++r) numbers[r] = p[r];
    std::memcpy(floats, numbers, sizeof numbers);
#endif
}

template <int N, typename Number>
void tile_floats(const Matrix& m, int64_t block, const Rows& rows, int64_t first, float (*out)[ROWS]) {
    auto [columns, begin, x] = floats<Number>(m, block, rows, first);
    const Number* w = begin;
    v4 acc[N][PARTS] = {}, odd_acc[N][PARTS] = {};
    for (int64_t c = 0; c < columns; c += 4) {
        v4 values[N];
        for (int n = 0; n < N; ++n) values[n] = wide(x + n * columns + c);
        each_of_four([&](auto lane) {
            fetch(w + 1024 / sizeof *w);
            for (int part = 0; part < PARTS; ++part) {
                v4 weights = wide(w + part * WIDTH);
                for (int n = 0; n < N; ++n) {
                    v4& sums = (N <= 2 && int(lane) % 2 ? odd_acc : acc)[n][part];  // a second chain hides the latency of the first
                    sums += weights * values[n][int(lane)];
                }
            }
            w += ROWS;
        });
    }
    for (int n = 0; n < N; ++n)
        for (int part = 0; part < PARTS; ++part) put(out[n] + part * WIDTH, acc[n][part] + odd_acc[n][part]);
}

struct Codes {
    Unsigned of_all;  // the high bytes of the 16 codes

    explicit Codes(uint8_t first) : of_all(high_bytes(load_bytes<Unsigned>(ALL_CODES.codes), first)) {}
};

using Pairs = i4[2][PARTS];  // four columns, [column / 2][16][2]

// The first four of eight columns, or the last.
inline void decode(const uint8_t* w, int half, const Codes& of, Pairs& pairs) {
#pragma GCC unroll 4
    for (int part = 0; part < PARTS; ++part) {  // four rows
        Unsigned low = load_bytes<Unsigned>(w + 64 * half + 16 * part), codes = load_bytes<Unsigned>(w + 128 + 16 * part);
        interleave(low, looked_up(of.of_all, half ? codes >> 4 : codes & 15), pairs[0][part], pairs[1][part]);
    }
}

// acc and odd_acc [N][PARTS] += two columns times two numbers of each row of activations.
template <int N>
[[gnu::always_inline]] inline void add_pair(const i4 (&pair)[PARTS], const float* x, int64_t columns, v4 (&acc)[N][PARTS],
                                            v4 (&odd_acc)[N][PARTS]) {
#pragma GCC unroll 4
    for (int part = 0; part < PARTS; ++part) {
        v4 even = (v4)(pair[part] << 16), odd = (v4)(pair[part] & int32_t(0xffff0000));
        for (int n = 0; n < N; ++n) {
            acc[n][part] += even * x[n * columns];
            (N <= 2 ? odd_acc : acc)[n][part] += odd * x[n * columns + 1];
        }
    }
}

template <int N, typename Block>
void tile_coded(Block block, int64_t columns, const float* x, float (*out)[ROWS]) {
    v4 acc[N][PARTS] = {}, odd_acc[N][PARTS] = {};
    block.each(columns, [&](int64_t c, const Pairs& pairs) {
#pragma GCC unroll 2
        for (int pair = 0; pair < 2; ++pair) add_pair<N>(pairs[pair], x + c + 2 * pair, columns, acc, odd_acc);
    });
    for (int n = 0; n < N; ++n)
        for (int part = 0; part < PARTS; ++part) put(out[n] + part * WIDTH, acc[n][part] + odd_acc[n][part]);
}

// Meanwhile the codes of the `next` block are fetched.
template <int N>
void tile_decoded(const uint16_t* w, const uint8_t* next, int64_t columns, const float* x, float (*out)[ROWS]) {
    v4 acc[N][PARTS] = {}, odd_acc[N][PARTS] = {};
    for (int64_t c = 0; c < columns; c += 2, w += 2 * ROWS) {
        i4 pair[PARTS];
        std::memcpy(pair, w, sizeof pair);
        soon(next + c * CODED / 8);
        add_pair<N>(pair, x + c, columns, acc, odd_acc);
    }
    for (int n = 0; n < N; ++n)
        for (int part = 0; part < PARTS; ++part) put(out[n] + part * WIDTH, acc[n][part] + odd_acc[n][part]);
}

// Of int8 weights, or of int4 ones that `widen_int4` made bytes.
template <int N, Format FORMAT>
void tile_bytes(const Matrix& m, int64_t block, const Rows& rows, int64_t first, const int8_t* widened, float (*out)[ROWS]) {
    constexpr int GROUP = FORMAT == Format::int8 ? GROUP8 : GROUP4;
    auto [columns, groups, begin, x, scales, sums] = integers<int8_t>(m, block, rows, first);
    const int8_t* w = FORMAT == Format::int8 ? begin : widened;
    const uint16_t* w_scales = grids(m, block).w_scales;
    v4 acc[N][PARTS] = {};
    for (int64_t g = 0; g < groups; ++g) {
        i4 dot[N][PARTS] = {};
        for (int64_t c = g * GROUP; c < (g + 1) * GROUP; c += 16) {
            Signed values[N];
            for (int n = 0; n < N; ++n) values[n] = load_bytes<Signed>(x + n * columns + c);
            each_of_four([&](auto lane) {
                fetch(w + 2048);
                for (int part = 0; part < PARTS; ++part, w += 16) {
                    Signed weights = load_bytes<Signed>(w);
                    for (int n = 0; n < N; ++n) dot[n][part] = add_products<decltype(lane)::value>(dot[n][part], weights, values[n]);
                }
            });
        }
        for (int part = 0; part < PARTS; ++part) {
            v4 scale = v4{} + 1;
            if constexpr (FORMAT == Format::int4) scale = wide(w_scales + g * ROWS + part * WIDTH);
            for (int n = 0; n < N; ++n) acc[n][part] += __builtin_convertvector(dot[n][part], v4) * (scale * scales[n * groups + g]);
        }
    }
    const float* of_rows = static_cast<const float*>(m.scales) + block * ROWS;
    for (int n = 0; n < N; ++n)
        for (int part = 0; part < PARTS; ++part)
            put(out[n] + part * WIDTH, FORMAT == Format::int8 ? acc[n][part] * wide(of_rows + part * WIDTH) : acc[n][part]);
}

template <int N>
void tile_int8(const Matrix& m, int64_t block, const Rows& rows, int64_t first, float (*out)[ROWS]) {
    tile_bytes<N, Format::int8>(m, block, rows, first, nullptr, out);
}

// A block of int4 weights, less their zero points, as bytes in the order of int8.
void widen_int4(const Matrix& m, int64_t block, int8_t* out) {
    int64_t columns = m.padded_columns();
    const uint8_t *w = static_cast<const uint8_t*>(m.data) + block * columns * ROWS / 2, *zeros = grids(m, block).zeros;
    for (int64_t c = 0; c < columns; c += GROUP4, zeros += ROWS) {
        Unsigned zero[PARTS], places = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
        for (int part = 0; part < PARTS; ++part, places += 4) zero[part] = looked_up(load_bytes<Unsigned>(zeros), places);
        for (int64_t i = 0; i < GROUP4; i += 8, out += 64)
            for (int part = 0; part < PARTS; ++part, w += 16, out += 16) {
                fetch(w + 1024);
                Unsigned both = load_bytes<Unsigned>(w), low = (both & 15) - zero[part], high = (both >> 4) - zero[part];
                std::memcpy(out, &low, sizeof low);
                std::memcpy(out + 64, &high, sizeof high);
            }
    }
}

template <int N>
void tile_int4(const Matrix& m, int64_t block, const Rows& rows, int64_t first, float (*out)[ROWS]) {
    auto [columns, groups, begin, x, scales, sums] = integers<uint8_t>(m, block, rows, first);
    auto [w_scales, zeros] = grids(m, block);
    const uint8_t* w = begin;
    v4 acc[N][PARTS] = {};
    for (int64_t g = 0; g < groups; ++g, w_scales += ROWS, zeros += ROWS) {
        i4 dot[N][PARTS] = {}, other[N][PARTS] = {};  // with few rows a second chain hides the latency of the first
        Signed values[N][2];
        for (int n = 0; n < N; ++n)
            for (int half = 0; half < 2; ++half) values[n][half] = load_bytes<Signed>(x + n * columns + g * GROUP4 + 16 * half);
        each_of_four([&](auto eight) {  // columns
            constexpr int LANE = decltype(eight)::value % 2 * 2;
            fetch(w + 1024);
            for (int part = 0; part < PARTS; ++part, w += 16) {
                Unsigned both = load_bytes<Unsigned>(w);
                Signed low = (Signed)(both & 15), high = (Signed)(both >> 4);
                for (int n = 0; n < N; ++n) {
                    i4& second = (N <= 2 ? other : dot)[n][part];
                    dot[n][part] = add_products<LANE>(dot[n][part], low, values[n][int(eight) / 2]);
                    second = add_products<LANE + 1>(second, high, values[n][int(eight) / 2]);
                }
            }
        });
        v4 zero[PARTS];
        widen(zeros, zero);
        for (int part = 0; part < PARTS; ++part) {
            v4 scale = wide(w_scales + part * WIDTH);
            for (int n = 0; n < N; ++n)
                acc[n][part] += (__builtin_convertvector(dot[n][part] + other[n][part], v4) - zero[part] * sums[n * groups + g]) *
                                (scale * scales[n * groups + g]);
        }
    }
    std::memcpy(out, acc, sizeof acc);
}

#else  // any processor: loops that compilers vectorize

constexpr int MOST = 4, MOST_FLOATS = MOST, MOST_CODED = 0;

template <int N, typename Number>
void tile_floats(const Matrix& m, int64_t block, const Rows& rows, int64_t first, float (*out)[ROWS]) {
    auto [columns, w, x] = floats<Number>(m, block, rows, first);
    v8 acc[N][2] = {};
    for (int64_t c = 0; c < columns; ++c, w += ROWS)
        for (int n = 0; n < N; ++n) {
            acc[n][0] += load(w) * x[n * columns + c];
            acc[n][1] += load(w + 8) * x[n * columns + c];
        }
    std::memcpy(out, acc, sizeof acc);
}

struct Codes {
    uint8_t first;
};

using Pairs = uint16_t[2][2 * ROWS];  // four columns, [column / 2][16][2]

// The first four of eight columns, or the last.
inline void decode(const uint8_t* w, int half, const Codes& of, Pairs& pairs) {
    typedef uint8_t Some __attribute__((vector_size(16)));
    typedef uint16_t Both __attribute__((vector_size(32)));
    for (int at = 0; at < 64; at += 16) {  // of four rows
        Some low, codes;
        std::memcpy(&low, w + 64 * half + at, sizeof low);
        std::memcpy(&codes, w + 128 + at, sizeof codes);
        if (half) codes >>= 4;
        Both both = __builtin_convertvector(high_bytes(codes, of.first), Both) << 8 | __builtin_convertvector(low, Both);
        for (int pair = 0; pair < 2; ++pair)
            std::memcpy(pairs[pair] + at / 2, reinterpret_cast<const char*>(&both) + 16 * pair, 16);
    }
}

template <int N>
void tile_decoded(const uint16_t* w, const uint8_t* next, int64_t columns, const float* x, float (*out)[ROWS]) {
    v8 acc[N][2] = {};
    for (int64_t c = 0; c < columns; c += 2, w += 2 * ROWS) {
        soon(next + c * CODED / 8);
        for (int half = 0; half < 2; ++half) {
            i8 both;
            std::memcpy(&both, w + half * ROWS, sizeof both);
            v8 even = (v8)(both << 16), odd = (v8)(both & int32_t(0xffff0000));
            for (int n = 0; n < N; ++n) acc[n][half] += even * x[n * columns + c] + odd * x[n * columns + c + 1];
        }
    }
    std::memcpy(out, acc, sizeof acc);
}

template <int N>
void tile_int8(const Matrix& m, int64_t block, const Rows& rows, int64_t first, float (*out)[ROWS]) {
    const float* of_rows = static_cast<const float*>(m.scales) + block * ROWS;
    for (int n = 0; n < N; ++n) {
        auto [columns, groups, w, x, scales, sums] = integers<int8_t>(m, block, rows, first + n);
        float acc[ROWS] = {};
        for (int64_t g = 0; g < groups; ++g) {
            int32_t dot[ROWS] = {};
            for (int64_t c = g * GROUP8; c < (g + 1) * GROUP8; c += 4, w += 4 * ROWS)
                for (int r = 0; r < ROWS; ++r)
                    for (int i = 0; i < 4; ++i) dot[r] += w[4 * r + i] * x[c + i];
            for (int r = 0; r < ROWS; ++r) acc[r] += float(dot[r]) * scales[g];
        }
        for (int r = 0; r < ROWS; ++r) out[n][r] = acc[r] * of_rows[r];
    }
}

template <int N>
void tile_int4(const Matrix& m, int64_t block, const Rows& rows, int64_t first, float (*out)[ROWS]) {
    for (int n = 0; n < N; ++n) {
        auto [columns, groups, w, x, scales, sums] = integers<uint8_t>(m, block, rows, first + n);
        auto [w_scales, zeros] = grids(m, block);
        std::memset(out[n], 0, sizeof *out);
        for (int64_t g = 0; g < groups; ++g, w_scales += ROWS, zeros += ROWS) {
            int32_t dot[ROWS] = {};
            for (int64_t c = g * GROUP4; c < (g + 1) * GROUP4; c += 8, w += 4 * ROWS)
                for (int r = 0; r < ROWS; ++r)
                    for (int i = 0; i < 4; ++i)
                        dot[r] += (w[4 * r + i] & 15) * x[c + i] + (w[4 * r + i] >> 4) * x[c + 4 + i];
            for (int r = 0; r < ROWS; ++r)
                out[n][r] += (float(dot[r]) - zeros[r] * sums[g]) * (half_to_float(w_scales[r]) * scales[g]);
        }
    }
}

#endif

// A block of bfloat16.
struct Coded {
    const uint8_t* w;
    Codes codes;
    const Stray *stray, *end;

    Coded(const Matrix& m, int64_t block)
        : w(codes_of(m, block)), codes{m.firsts[block]}, stray(m.strays(block)), end(m.strays(block + 1)) {}

    // Calls work with each four columns.
    template <typename Work>
    void each(int64_t columns, const Work& work) {
        for (int64_t c = 0; c < columns; c += 8, w += CODED) {
            for (int line = 0; line < CODED; line += 64) fetch(w + AHEAD + line);
#pragma GCC unroll 2
            for (int half = 0; half < 2; ++half) {
                Pairs pairs;
                decode(w, half, codes, pairs);
                if (stray < end && stray->place < (c + 4 * half + 4) * ROWS) [[unlikely]]
                    put_strays(c + 4 * half, pairs);
                work(c + 4 * half, pairs);
            }
        }
    }

    // Puts those of columns c..c+3 into their places.
    void put_strays(int64_t c, Pairs& pairs) {
        uint16_t numbers[4 * ROWS];
        std::memcpy(numbers, pairs, sizeof numbers);
        for (; stray < end && stray->place < (c + 4) * ROWS; ++stray) {
            int64_t column = stray->place / ROWS - c, row = stray->place % ROWS;
            numbers[(column / 2 * ROWS + row) * 2 + column % 2] = uint16_t(stray->bits);
        }
        std::memcpy(pairs, numbers, sizeof numbers);
    }
};

// A block of bfloat16 as [column / 2][16][2].
void widen_bfloat16(const Matrix& m, int64_t block, uint16_t* out) {
    Coded(m, block).each(m.padded_columns(), [&](int64_t c, const Pairs& pairs) {
        for (int pair = 0; pair < 2; ++pair) std::memcpy(out + c * ROWS + pair * 2 * ROWS, &pairs[pair], sizeof pairs[pair]);
    });
}

// A block of bfloat16, or on NEON of int4, may be given `decoded`.
template <int N>
void tile(const Matrix& m, int64_t block, const Rows& rows, int64_t first, const void* decoded, float (*out)[ROWS]) {
    if (m.format == Format::float32) return tile_floats<N, float>(m, block, rows, first, out);
    if (m.format == Format::float16) return tile_floats<N, uint16_t>(m, block, rows, first, out);
    if constexpr (N <= MOST) {
        if (m.format == Format::int8) return tile_int8<N>(m, block, rows, first, out);
#if defined(GLMKIT_NEON)
        if (m.format == Format::int4 && decoded)
            return tile_bytes<N, Format::int4>(m, block, rows, first, static_cast<const int8_t*>(decoded), out);
#endif
        if (m.format == Format::int4) return tile_int4<N>(m, block, rows, first, out);
        int64_t columns = m.padded_columns();
        const float* x = rows.values + first * columns;
        if constexpr (MOST_CODED > 0)
            if (!decoded) return tile_coded<N>(Coded(m, block), columns, x, out);
#if !defined(GLMKIT_AVX512)  // many rows go by pairs of blocks there
        tile_decoded<N>(static_cast<const uint16_t*>(decoded), codes_of(m, block + 1), columns, x, out);
#endif
    }
}

// tile<count>, count being at most N.
template <int N>
void tiles(int64_t count, const Matrix& m, int64_t block, const Rows& rows, int64_t first, const void* decoded,
           float (*out)[ROWS]) {
    if constexpr (N > 1)
        if (count < N) return tiles<N - 1>(count, m, block, rows, first, decoded, out);
    tile<N>(m, block, rows, first, decoded, out);
}

// Rounds GROUP numbers to int8 with one scale.
template <int GROUP>
inline void quantize(const float* x, int8_t* q, float* scale, float* sum_of_them) {
    Wide most = {};
    for (int c = 0; c < GROUP; c += WIDTH) most = max(most, max(wide(x + c), -wide(x + c)));
    float top = largest(most), inverse = top > 0 ? 127 / top : 0;
    Wholes total = {};
    for (int c = 0; c < GROUP; c += WIDTH) {
        Wholes whole = (Wholes)(wide(x + c) * inverse + ROUND) - ROUND_BITS;
        Bytes bytes = __builtin_convertvector(whole, Bytes);
        std::memcpy(q + c, &bytes, sizeof bytes);
        total += whole;
    }
    *scale = top / 127;
    *sum_of_them = float(sum(total));
}

// The same of 64 columns, group by group; the scale and the sum of the group that begins at column i are those at place(i).
template <typename Place>
inline void quantize_columns(const Matrix& m, const float* x, int8_t* q, const Rows& rows, const Place& place) {
    static_assert(COLUMNS == GROUP8);
    if (m.format == Format::int8) return quantize<GROUP8>(x, q, rows.scales + place(0), rows.sums + place(0));
    for (int i = 0; i < COLUMNS; i += GROUP4) quantize<GROUP4>(x + i, q + i, rows.scales + place(i), rows.sums + place(i));
}

// Columns c..c+63 of row n.
inline void prepare_columns(const Matrix& m, const Rows& rows, int64_t n, int64_t c, const float* x) {
    int64_t first = n * m.padded_columns() + c, place = m.format == Format::int8 ? first / GROUP8 : first / GROUP4;
    quantize_columns(m, x, rows.quantized + first, rows, [&](int64_t i) { return place + i / GROUP4; });
    if (m.format == Format::int8) rows.sums[place] *= OFFSET8;
}

void prepare(const Matrix& m, const Rows& rows, int64_t first, int64_t last) {
    if (!m.integer()) return;
    int64_t columns = m.padded_columns();
    for (int64_t n = first; n < last; ++n)
        for (int64_t c = 0; c < columns; c += COLUMNS) prepare_columns(m, rows, n, c, rows.values + n * columns + c);
}

// Makes of sums of the rows `row` and on, of which there are `rows`, what they are without what `out` holds.
template <int N>
inline void complete(Wide (&y)[N], int64_t row, int64_t rows, const Result& result) {
#pragma GCC unroll 4
    for (int64_t i = 0; i < N && result.bias; ++i)
        if (row + i * WIDTH < rows) y[i] += wide(result.bias + row + i * WIDTH);
    if (result.activate) activate(y, result.activation);
}

// Writes, or adds, them to row n of `out`.
template <int N>
inline void store(const Wide (&y)[N], int64_t row, int64_t rows, const Result& result, int64_t n) {
    float* out = result.out + n * result.stride + row;
    int64_t count = rows - row;
    if (count >= N * WIDTH) {
#pragma GCC unroll 4
        for (int64_t i = 0; i < N; ++i) put(out + i * WIDTH, result.add ? y[i] + wide(out + i * WIDTH) : y[i]);
        return;
    }
    float numbers[N * WIDTH];
    std::memcpy(numbers, y, sizeof y);
    for (int64_t r = 0; r < count; ++r) out[r] = result.add ? out[r] + numbers[r] : numbers[r];
}

#if defined(GLMKIT_AVX512)

// Calls work with the number of rows that it is to take, as a constant of at most N, until `count` are done.
template <int N, typename Work>
void by_rows(int64_t count, const Work& work) {
    int64_t n = 0;
    for (; n + N <= count; n += N) work(n, std::integral_constant<int, N>());
    if constexpr (N > 1)
        if (n < count) by_rows<N - 1>(count - n, [&](int64_t rest, auto some) { work(n + rest, some); });
}

// Sums of rows x 32 columns, rows `stride` numbers apart. They begin at zero, or at what is there.
struct Sums {
    float* at;
    int64_t stride;
    bool more = false;

    Sums from(int64_t row) const { return {at + row * stride, stride, more}; }
    template <int N>
    void read(v16 (&acc)[N][2]) const {
#pragma GCC unroll 16
        for (int n = 0; n < N; ++n)
            for (int b = 0; b < 2; ++b) acc[n][b] = more ? wide(at + n * stride + b * ROWS) : v16{};
    }
    template <int N>
    void write(const v16 (&acc)[N][2]) const {
#pragma GCC unroll 16
        for (int n = 0; n < N; ++n)
            for (int b = 0; b < 2; ++b) put(at + n * stride + b * ROWS, acc[n][b]);
    }
};

// Adds N rows of numbers, `stride` apart, x 32 columns: 16 and, `next` numbers further on, 16 more, whose rows are `step`
// numbers apart.
template <int N>
void add_products(const float* x, int64_t stride, const float* columns, int64_t next, int64_t step, int64_t count, Sums sums) {
    v16 acc[N][2];
    sums.read(acc);
    for (int64_t c = 0; c < count; ++c, columns += step) {
        v16 one = wide(columns), two = wide(columns + next);
#pragma GCC unroll 16
        for (int n = 0; n < N; ++n) {
            v16 value = all16(x[n * stride + c]);
            acc[n][0] += one * value;
            acc[n][1] += two * value;
        }
    }
    sums.write(acc);
}

// The same of bfloat16, two columns in a row, of which odd ones are added up apart. Meanwhile the codes of other blocks are fetched.
template <int N>
void add_bfloat16(const float* x, int64_t stride, const uint16_t* one, const uint16_t* two, const uint8_t* const codes[2],
                  int64_t columns, Sums sums) {
    v16 acc[N][2], odd_acc[N][2] = {};
    sums.read(acc);
    for (int64_t c = 0; c < columns; c += 2, one += 2 * ROWS, two += 2 * ROWS) {
        i16 first = (i16)load_bytes(one), second = (i16)load_bytes(two);
        soon(codes[0] + c * CODED / 8);
        soon(codes[1] + c * CODED / 8);
        v16 even[2] = {(v16)(first << 16), (v16)(second << 16)};
        v16 odd[2] = {(v16)(first & int32_t(0xffff0000)), (v16)(second & int32_t(0xffff0000))};
#pragma GCC unroll 16
        for (int n = 0; n < N; ++n) {
            v16 value = all16(x[n * stride + c]), next = all16(x[n * stride + c + 1]);
            for (int b = 0; b < 2; ++b) acc[n][b] += even[b] * value, odd_acc[n][b] += odd[b] * next;
        }
    }
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n)
        for (int b = 0; b < 2; ++b) acc[n][b] += odd_acc[n][b];
    sums.write(acc);
}

// The same of whole numbers, group by group. Weights are signed bytes (int8), or unsigned ones that are `OFFSET4` too much;
// those that come next are `ahead` bytes further on.
template <int N, Format FORMAT>
void add_integers(const int8_t* x, int64_t stride, const uint8_t* one, const uint8_t* two, int64_t groups,
                  const float* scales, const float* x_sums, int64_t scales_stride, const uint16_t* const w_scales[2],
                  int64_t ahead, Sums sums) {
    constexpr int STEPS = (FORMAT == Format::int8 ? GROUP8 : GROUP4) / 4;
    v16 acc[N][2];
    sums.read(acc);
    for (int64_t g = 0; g < groups; ++g) {
        i16 dot[N][2] = {};
        for (int step = 0; step < STEPS; ++step, one += 4 * ROWS, two += 4 * ROWS) {
            u64 first = load_bytes(one), second = load_bytes(two);
            if constexpr (FORMAT == Format::int8) {
                soon(one + ahead);
                soon(two + ahead);
                first ^= uint8_t(OFFSET8), second ^= uint8_t(OFFSET8);
            }
#pragma GCC unroll 16
            for (int n = 0; n < N; ++n) {
                i16 four = all_four(x + n * stride + (g * STEPS + step) * 4);
                dot[n][0] = add_products(dot[n][0], first, four);
                dot[n][1] = add_products(dot[n][1], second, four);
            }
        }
        v16 of_rows[2];
        if constexpr (FORMAT == Format::int4)
            of_rows[0] = wide(w_scales[0] + g * ROWS), of_rows[1] = wide(w_scales[1] + g * ROWS);
#pragma GCC unroll 16
        for (int n = 0; n < N; ++n) {
            v16 scale = all16(scales[n * scales_stride + g]), more = all16(x_sums[n * scales_stride + g]);
            if constexpr (FORMAT == Format::int4) more *= OFFSET4;
            for (int b = 0; b < 2; ++b) {
                v16 factor = FORMAT == Format::int4 ? of_rows[b] * scale : scale;
                acc[n][b] += (__builtin_convertvector(dot[n][b], v16) - more) * factor;
            }
        }
    }
    sums.write(acc);
}

// A block of int4 weights, less their zero points and plus `offset`, as bytes in the order of int8.
void widen_int4(const Matrix& m, int64_t block, uint8_t offset, uint8_t* out) {
    int64_t columns = m.padded_columns();
    const uint8_t *w = static_cast<const uint8_t*>(m.data) + block * columns * ROWS / 2, *zeros = grids(m, block).zeros;
    for (int64_t c = 0; c < columns; c += GROUP4, zeros += ROWS) {
        u64 zero = four_times(zeros) - offset;
        fetch(zeros + GROUPS_AHEAD * ROWS);
        for (int64_t i = 0; i < GROUP4; i += 8, w += 64, out += 128) {
            fetch(w + AHEAD);
            u64 both = load_bytes(w), low = (both & uint8_t(15)) - zero, high = (both >> 4) - zero;
            std::memcpy(out, &low, 64);
            std::memcpy(out + 64, &high, 64);
        }
    }
}

// Bytes of a block as many rows are multiplied with it.
int64_t block_bytes(const Matrix& m) { return ROWS * m.padded_columns() * (m.integer() ? 1 : m.format == Format::bfloat16 ? 2 : 4); }

// A block of float16 as float32.
void widen_float16(const Matrix& m, int64_t block, float* out) {
    int64_t numbers = ROWS * m.padded_columns();
    const uint16_t* w = static_cast<const uint16_t*>(m.data) + block * numbers;
    for (int64_t i = 0; i < numbers; i += ROWS) {
        fetch(w + i + AHEAD / 2);
        put(out + i, wide(w + i));
    }
}

// Up to BLOCKS blocks as many rows are multiplied with them: where they lie or, of formats that have to be widened, in memory
// that the next call uses again. `offset` is that of int4.
const char* blocks_of(const Matrix& m, int64_t block, int64_t count, uint8_t offset) {
    int64_t bytes = block_bytes(m);
    if (m.format == Format::float32 || m.format == Format::int8) return static_cast<const char*>(m.data) + block * bytes;
    char* widened = memory(BLOCKS * bytes);
    for (int64_t b = 0; b < count; ++b)
        if (m.format == Format::int4)
            widen_int4(m, block + b, offset, reinterpret_cast<uint8_t*>(widened + b * bytes));
        else if (m.format == Format::float16)
            widen_float16(m, block + b, reinterpret_cast<float*>(widened + b * bytes));
        else
            widen_bfloat16(m, block + b, reinterpret_cast<uint16_t*>(widened + b * bytes));
    return widened;
}

// sums [count][2] = rows from row n on x two blocks, or twice the same one, of which `blocks_of` gave the first. A weight
// that has been loaded meets several rows, and two blocks share a row's numbers.
void add_pair(const Matrix& m, const Rows& rows, int64_t n, int64_t count, int64_t block, int64_t next, const char* w,
              v16 (*sums)[2]) {
    int64_t columns = m.padded_columns(), group = m.group(), groups = columns / group;
    const float* x = rows.values + n * columns;
    int64_t near = m.format == Format::bfloat16 ? columns : PAIR_BYTES / (2 * ROWS) / (m.integer() ? 1 : 4);
    for (int64_t c = 0; c < columns; c += near) {
        int64_t some = std::min(near, columns - c);
        Sums to{reinterpret_cast<float*>(sums), 2 * ROWS, c > 0};
        if (m.format == Format::float32 || m.format == Format::float16) {
            const float* one = reinterpret_cast<const float*>(w) + c * ROWS;
            by_rows<12>(count, [&](int64_t i, auto N) {
                add_products<N>(x + i * columns + c, columns, one, next * columns * ROWS, ROWS, some, to.from(i));
            });
        } else if (m.format == Format::bfloat16) {
            const uint16_t *one = reinterpret_cast<const uint16_t*>(w) + c * ROWS, *two = one + next * columns * ROWS;
            const uint8_t* codes[2] = {codes_of(m, block + BLOCKS), codes_of(m, block + BLOCKS + next)};
            by_rows<6>(count, [&](int64_t i, auto N) {
                add_bfloat16<N>(x + i * columns + c, columns, one, two, codes, some, to.from(i));
            });
        } else {
            const uint8_t *one = reinterpret_cast<const uint8_t*>(w) + c * ROWS, *two = one + next * columns * ROWS;
            bool four_bits = m.format == Format::int4;
            const uint16_t* w_scales[2] = {};
            int64_t ahead = (c + some < columns ? some : 2 * columns - c) * ROWS;
            for (int b = 0; four_bits && b < 2; ++b) w_scales[b] = grids(m, block + b * next).w_scales + c / group * ROWS;
            by_rows<6>(count, [&](int64_t i, auto N) {
                auto add = four_bits ? add_integers<N, Format::int4> : add_integers<N, Format::int8>;
                int64_t place = (n + i) * groups + c / group;
                add(rows.quantized + (n + i) * columns + c, columns, one, two, some / group, rows.scales + place,
                    rows.sums + place, groups, w_scales, ahead, to.from(i));
            });
        }
    }
}

// Completes sums of BLOCKS blocks, zero where a matrix does not have so many, and stores them; or `prepare` does what the next
// matrix wants, with 64 columns of a row.
template <typename Prepare>
inline void finish_blocks(v16 (&y)[BLOCKS], int64_t row, int64_t rows, const Result& result, int64_t n, const Prepare& prepare) {
    static_assert(BLOCKS * ROWS == COLUMNS);
    complete(y, row, rows, result);
    if (!result.next) return store(y, row, rows, result, n);
    float numbers[COLUMNS];
    std::memcpy(numbers, y, sizeof y);
    prepare(*result.next_matrix, *result.next, n, row, numbers);
}

// Whether so many rows are multiplied by pairs of blocks; int4 weights have to be widened for that.
bool many(const Matrix& m, int64_t rows) { return rows > (m.format == Format::int4 ? 4 * MOST : MOST); }

void multiply_many(const Matrix& m, const Rows& rows, int64_t first, int64_t last, int64_t first_block, int64_t last_block,
                   const Result& result) {
    int64_t bytes = block_bytes(m);
    for (int64_t block = first_block; block < last_block; block += BLOCKS) {
        int64_t blocks = std::min(BLOCKS, last_block - block), row = block * ROWS;
        const char* w = blocks_of(m, block, blocks, OFFSET4);
        v16 of_rows[BLOCKS];
        for (int64_t b = 0; b < blocks; ++b)
            of_rows[b] = m.format == Format::int8 ? wide(static_cast<const float*>(m.scales) + row + b * ROWS) : all16(1);
        for (int64_t start = first; start < last; start += SOME) {
            int64_t count = std::min(SOME, last - start);
            if (!result.next)  // rows of results lie far apart
                for (int64_t n = 0; n < count; ++n)
                    for (int64_t b = 0; b < blocks; ++b)
                        __builtin_prefetch(result.out + (start + n) * result.stride + row + b * ROWS, 1, 2);
            v16 sums[BLOCKS / 2][SOME][2];
            for (int64_t b = 0; b < blocks; b += 2)
                add_pair(m, rows, start, count, block + b, b + 1 < blocks, w + b * bytes, sums[b / 2]);
            for (int64_t n = 0; n < count; ++n) {
                v16 y[BLOCKS];
#pragma GCC unroll 4
                for (int64_t b = 0; b < BLOCKS; ++b) y[b] = b < blocks ? sums[b / 2][n][b % 2] * of_rows[b] : v16{};
                finish_blocks(y, row, m.rows, result, start + n, prepare_columns);
            }
        }
    }
}

#endif

// Whether a block is decoded before so many rows are multiplied with it.
bool decodes(const Matrix& m, int64_t rows) {
#if defined(GLMKIT_NEON)
    if (m.format == Format::int4) return rows > 2 * MOST;
#endif
    return m.format == Format::bfloat16 && rows > MOST_CODED;
}

void multiply(const Matrix& m, const Rows& rows, int64_t first, int64_t last, int64_t first_block, int64_t last_block,
              const Result& result) {
    float acc[MOST_FLOATS][ROWS];
    int64_t most = m.format == Format::float32 || m.format == Format::float16 ? MOST_FLOATS : MOST;
#if defined(GLMKIT_AVX512)
    if (many(m, rows.count)) return multiply_many(m, rows, first, last, first_block, last_block, result);
#endif
    char* decoded = nullptr;
    if (decodes(m, last - first)) decoded = memory(m.padded_columns() * ROWS * 2);
    for (int64_t block = first_block; block < last_block; ++block) {
        if (decoded && m.format == Format::bfloat16) widen_bfloat16(m, block, reinterpret_cast<uint16_t*>(decoded));
#if defined(GLMKIT_NEON)
        if (decoded && m.format == Format::int4) widen_int4(m, block, reinterpret_cast<int8_t*>(decoded));
#endif
        for (int64_t n = first; n < last;) {
            int64_t rest = last - n, times = (rest + most - 1) / most, count = (rest + times - 1) / times;
            tiles<MOST_FLOATS>(count, m, block, rows, n, decoded, acc);
            for (int64_t i = 0; i < count; ++i, ++n) {
                Wide y[ROWS / WIDTH];
                std::memcpy(y, acc[i], sizeof y);
                complete(y, block * ROWS, m.rows, result);
                store(y, block * ROWS, m.rows, result, n);
            }
        }
    }
}

void normalize(const float* x, const float* weight, const float* bias, float eps, int64_t n, float* y) {
    int64_t whole = n / WIDTH * WIDTH;
    Wide sums = {}, squares = {};
    for (int64_t i = 0; i < whole; i += WIDTH) sums += wide(x + i);
    float mean = sum(sums);
    for (int64_t i = whole; i < n; ++i) mean += x[i];
    mean /= float(n);
    for (int64_t i = 0; i < whole; i += WIDTH) squares += (wide(x + i) - mean) * (wide(x + i) - mean);
    float variance = sum(squares);
    for (int64_t i = whole; i < n; ++i) variance += (x[i] - mean) * (x[i] - mean);
    float factor = 1 / std::sqrt(variance / float(n) + eps);
    for (int64_t i = 0; i < whole; i += WIDTH) put(y + i, (wide(x + i) - mean) * factor * wide(weight + i) + wide(bias + i));
    for (int64_t i = whole; i < n; ++i) y[i] = (x[i] - mean) * factor * weight[i] + bias[i];
}

// acc [N][PARTS] += `count` rows of numbers, `step` apart, each times a factor of its own for each of N queries.
template <typename Number, int N, int PARTS>
inline void add_rows(const Number* rows, int64_t step, int64_t count, const Number* next, const float* factors, int64_t stride,
                     Wide (&acc)[N][PARTS]) {
    for (int64_t j = 0; j < count; ++j) {
        fetch(next + j * step);
        Wide part[PARTS];
        for (int i = 0; i < PARTS; ++i) part[i] = wide(rows + j * step + i * WIDTH);
        for (int n = 0; n < N; ++n)
            for (int i = 0; i < PARTS; ++i) acc[n][i] += part[i] * factors[n * stride + j];
    }
}

// Gives to `keep` the exponentials of `length` scores, zero from `visible` on, a vector of them at a time; returns their sum.
template <typename Keep>
float exponentials(float* scores, int64_t visible, int64_t length, const Keep& keep) {
    for (int64_t j = visible; j < length; ++j) scores[j] = -INFINITY;
    Wide most = Wide{} - INFINITY, total = {};
    for (int64_t j = 0; j < length; j += WIDTH) most = max(most, wide(scores + j));
    float highest = largest(most);
    for (int64_t j = 0; j < length; j += WIDTH) {
        Wide weight = wide(scores + j) - highest;
        weight = weight < -86.0f ? Wide{} : exponential(weight);
        keep(j, weight);
        total += weight;
    }
    return sum(total);
}

template <typename Number, int N>
void attend_queries(const Heads& heads, const float* queries, const int64_t* visible, int64_t size, float scale,
                    float* scores, float* context) {
    int64_t most = *std::max_element(visible, visible + N), stride = padded(most, PAGE);
    auto page = [&](int64_t start, int64_t offset) {
        return reinterpret_cast<const Number*>(static_cast<const char*>(heads.pages[start / PAGE]) + offset);
    };
    for (int64_t start = 0; start < stride; start += PAGE) {
        // Pages lie apart, so that no processor guesses which comes next: the last one's successor is the first of values.
        const Number *keys = page(start, heads.key_offset),
                     *next = start + PAGE < stride ? page(start + PAGE, heads.key_offset) : page(0, heads.value_offset);
        for (int64_t j = 0; j < PAGE; j += 2 * WIDTH) {
            Wide dot[N][2] = {};
            add_rows<Number, N, 2>(keys + j, PAGE, size, next + j, queries, size, dot);
            for (int n = 0; n < N; ++n)
                for (int i = 0; i < 2; ++i) put(scores + n * stride + start + j + i * WIDTH, dot[n][i] * scale);
        }
    }
    for (int n = 0; n < N; ++n) {
        float* row = scores + n * stride;
        float total = exponentials(row, visible[n], stride, [row](int64_t j, Wide weight) { put(row + j, weight); });
        for (int64_t j = 0; j < stride; j += WIDTH) put(row + j, wide(row + j) / total);
    }
    std::memset(context, 0, N * size * sizeof(float));
    for (int64_t start = 0; start < most; start += PAGE) {
        const Number *values = page(start, heads.value_offset),
                     *next = start + PAGE < most ? page(start + PAGE, heads.value_offset) : values;
        int64_t count = std::min<int64_t>(PAGE, most - start);
        auto some = [&](int64_t d, auto parts) {
            Wide acc[N][parts];
            for (int n = 0; n < N; ++n)
                for (int i = 0; i < parts; ++i) acc[n][i] = wide(context + n * size + d + i * WIDTH);
            add_rows<Number, N, parts>(values + d, size, count, next + d, scores + start, stride, acc);
            for (int n = 0; n < N; ++n)
                for (int i = 0; i < parts; ++i) put(context + n * size + d + i * WIDTH, acc[n][i]);
        };
        int64_t d = 0;
        for (; d + 2 * WIDTH <= size; d += 2 * WIDTH) some(d, std::integral_constant<int, 2>());
        if (d < size) some(d, std::integral_constant<int, 1>());
    }
}

template <typename Number>
void attend_some(const Heads& heads, const float* queries, int count, const int64_t* visible, int64_t size, float scale,
                 float* scores, float* context) {
    static_assert(QUERIES == 4);
    switch (count) {
        case 1: return attend_queries<Number, 1>(heads, queries, visible, size, scale, scores, context);
        case 2: return attend_queries<Number, 2>(heads, queries, visible, size, scale, scores, context);
        case 3: return attend_queries<Number, 3>(heads, queries, visible, size, scale, scores, context);
        default: return attend_queries<Number, 4>(heads, queries, visible, size, scale, scores, context);
    }
}

Peak peak(const float* scores, const uint8_t* barred, int64_t n) {
    auto kept = [&](int64_t j) {
        Wide some = Wide{} - INFINITY;
        if (j + WIDTH <= n) return wholes(barred + j) != 0 ? some : wide(scores + j);
        for (int64_t i = j; i < n; ++i)
            if (!barred[i]) some[i - j] = scores[i];
        return some;
    };
    Wide most = Wide{} - INFINITY, total = {};
    for (int64_t j = 0; j < n; j += WIDTH) most = max(most, kept(j));
    float best = largest(most), base = best > -INFINITY ? best : 0;
    for (int64_t j = 0; j < n; j += WIDTH) {
        Wide apart = kept(j) - base, weight = apart < -86.0f ? Wide{} : exponential(apart);
        total += apart != apart ? apart : weight;
    }
    return {best, sum(total)};
}

void attend(const Heads& heads, bool half, const float* queries, int count, const int64_t* visible, int64_t size,
            float scale, float* scores, float* context) {
    if (half)
        attend_some<uint16_t>(heads, queries, count, visible, size, scale, scores, context);
    else
        attend_some<float>(heads, queries, count, visible, size, scale, scores, context);
}

void to_half(const float* x, uint16_t* y, int64_t n) {
    int64_t i = 0;
#if defined(__AVX2__)
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128(reinterpret_cast<__m128i*>(y + i), _mm256_cvtps_ph((__m256)load(x + i), _MM_FROUND_TO_NEAREST_INT));
#elif defined(GLMKIT_NEON) && defined(__aarch64__)
    for (; i + 4 <= n; i += 4) vst1_u16(y + i, vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)wide(x + i))));
#endif
    for (; i < n; ++i) y[i] = float_to_half(x[i]);
}

// What is compiled here, under its name; without tiles and prompts.
Kernels plain_kernels(const char* name) { return {name, prepare, multiply, normalize, attend, to_half, peak, nullptr, nullptr}; }

}  // namespace
}  // namespace glmkit
