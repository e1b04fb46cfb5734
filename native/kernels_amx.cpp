// Compiled with AMX (int8, bfloat16) and AVX-512 where the compiler knows them: prompts and batches are multiplied tile by
// tile, 16 rows of activations with a block of 16 rows of weights, which is stored as AMX reads it. All else is done as
// AVX-512 does it, and sums of whole numbers are the same bit for bit. A float is multiplied as a sum of two bfloat16.
#if defined(__linux__) && defined(__AMX_INT8__) && defined(__AMX_BF16__) && defined(__AVX512VNNI__) && defined(__AVX512BF16__)
#define GLMKIT_AVX512
#define GLMKIT_AMX
#endif

#include "kernels_impl.h"

#if defined(GLMKIT_AMX)

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <vector>

namespace glmkit {
namespace {

constexpr int LEAST = 8;     // rows of activations; fewer are read sooner without tiles
constexpr int TILE = 1024;   // bytes: 16 rows of 64

struct alignas(64) Layout {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes[16];
    uint8_t rows[16];
};
// Constants: GCC 12 forgets what is written to memory just before it is loaded as a configuration.
constexpr Layout WIDE{.bytes = {64, 64, 64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16, 16, 16}};
constexpr Layout HALF{.bytes = {64, 64, 64, 64, 32, 32, 64, 64}, .rows = {16, 16, 16, 16, 16, 16, 8, 8}};

// While this lives, tiles 0 to 3 hold sums, 4 and 5 rows of 64 bytes of activations (`half`: 32), 6 and 7 weights.
struct Tiles {
    explicit Tiles(bool half = false) { _tile_loadconfig(half ? &HALF : &WIDE); }
    ~Tiles() { _tile_release(); }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;
};

// Memory of this thread, from a cache line on; what was in it is lost.
char* memory(int64_t bytes) {
    thread_local std::vector<char> kept;
    if (int64_t(kept.size()) < bytes + 64) kept = std::vector<char>(size_t(bytes + 64));
    return kept.data() + (-reinterpret_cast<uintptr_t>(kept.data()) & 63);
}

// ---- rows of activations as tiles: [row / 16][column / 64][16][64] bytes, scales and sums [row / 16][group][16] ----

inline i16 rounded(v16 x) { return (i16)_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)x)); }

// One or two bfloat16 of each of 16 numbers, `next` numbers apart.
inline void split(v16 x, uint16_t* out, int64_t next, int parts) {
    for (int part = 0; part < parts; ++part, out += next) {
        i16 bits = rounded(x);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_cvtepi32_epi16((__m512i)bits));
        x -= (v16)(bits << 16);
    }
}

// The same of 16 pairs, side by side.
inline void split_pairs(v16 even, v16 odd, uint16_t* out, int64_t next, int parts) {
    for (int part = 0; part < parts; ++part, out += next) {
        i16 low = rounded(even), high = rounded(odd) << 16, both = low | high;
        std::memcpy(out, &both, sizeof both);
        even -= (v16)(low << 16);
        odd -= (v16)high;
    }
}

// Columns c..c+63 of row n as the matrix wants them. For bfloat16 weights two tiles of 32 columns follow each other: of the
// numbers rounded, and of what that leaves.
void prepare_some(const Matrix& m, const Rows& rows, int64_t n, int64_t c, const float* x) {
    int64_t columns = m.padded_columns(), tile = (n / ROWS * columns + c) / 64 * ROWS * 64 + n % ROWS * 64;
    if (m.format == Format::bfloat16) {
        auto* out = reinterpret_cast<uint16_t*>(rows.quantized + n / ROWS * ROWS * columns * 4 + c / 32 * 2 * TILE) + n % ROWS * 32;
        for (int64_t i = 0; i < 64; i += ROWS) split(load16(x + i), out + i / 32 * TILE + i % 32, TILE / 2, 2);
        return;
    }
    int64_t group = m.group(), groups = columns / group;
    for (int64_t i = 0; i < 64; i += group) {
        int64_t place = (n / ROWS * groups + (c + i) / group) * ROWS + n % ROWS;
        quantize(x + i, group, rows.quantized + tile + i, rows.scales + place, rows.sums + place);
    }
}

void prepare_tiles(const Matrix& m, const Rows& rows, int64_t first, int64_t last) {
    if (rows.count < LEAST || m.format == Format::float32) return prepare(m, rows, first, last);
    int64_t columns = m.padded_columns();
    for (int64_t n = first; n < last; ++n)
        for (int64_t c = 0; c < columns; c += 64) prepare_some(m, rows, n, c, rows.values + n * columns + c);
}

struct alignas(64) Sums {
    int32_t of[ROWS][ROWS];

    v16 row(int r) const { return (v16)_mm512_cvtepi32_ps(_mm512_load_si512(of[r])); }
};

// Products of two blocks with TILES tiles' rows of activations: [tile][block][row][16].
using Panel = v16[2][2][ROWS];

// Two tiles' rows of activations and two blocks; where there is one only, it stands twice.
struct Inputs {
    const char *x[2], *w[2];
    const float *scales[2], *sums[2];  // of activations
};

// Calls add(g, products) for each group of `width` columns; products [2 * tile + block].
template <int TILES, typename Add>
inline void each_group(const Inputs& in, int64_t groups, int64_t width, const Add& add) {
    Sums products[2][4];
    for (int64_t g = 0; g < groups; ++g) {
        int64_t x = g * width / 64 * TILE + g * width % 64, w = g * width * ROWS;
        _tile_loadd(4, in.x[0] + x, 64);
        _tile_loadd(6, in.w[0] + w, 64);
        _tile_zero(0);
        _tile_dpbssd(0, 4, 6);
        _tile_loadd(7, in.w[1] + w, 64);
        _tile_zero(1);
        _tile_dpbssd(1, 4, 7);
        if constexpr (TILES > 1) {
            _tile_loadd(5, in.x[1] + x, 64);
            _tile_zero(2);
            _tile_dpbssd(2, 5, 6);
            _tile_zero(3);
            _tile_dpbssd(3, 5, 7);
        }
        if (g) add(g - 1, products[1 - g % 2]);  // while tiles are at work
        Sums* here = products[g % 2];
        _tile_stored(0, here[0].of, 64);
        _tile_stored(1, here[1].of, 64);
        if constexpr (TILES > 1) {
            _tile_stored(2, here[2].of, 64);
            _tile_stored(3, here[3].of, 64);
        }
    }
    add(groups - 1, products[(groups - 1) % 2]);
}

template <int TILES>
void panel_int8(const Matrix& m, const Inputs& in, const int64_t* blocks, Panel& acc) {
    each_group<TILES>(in, m.padded_columns() / GROUP8, GROUP8, [&](int64_t g, const Sums* products) {
        for (int t = 0; t < TILES; ++t) {
#pragma GCC unroll 16
            for (int r = 0; r < ROWS; ++r) {
                v16 scale = v16{} + in.scales[t][g * ROWS + r];
                acc[t][0][r] += products[2 * t].row(r) * scale;
                acc[t][1][r] += products[2 * t + 1].row(r) * scale;
            }
        }
    });
    for (int b = 0; b < 2; ++b) {
        v16 of_rows = load16(static_cast<const float*>(m.scales) + blocks[b] * ROWS);
        for (int t = 0; t < TILES; ++t)
            for (int r = 0; r < ROWS; ++r) acc[t][b][r] *= of_rows;
    }
}

// A block of int4 weights as bytes in the order of int8.
void widen(const Matrix& m, int64_t block, uint8_t* out) {
    int64_t bytes = m.padded_columns() * ROWS;
    const uint8_t* w = static_cast<const uint8_t*>(m.data) + block * bytes / 2;
    for (int64_t i = 0; i < bytes; i += 128, w += 64) {
        u64 both = load_bytes(w), low = both & uint8_t(15), high = both >> 4;
        std::memcpy(out + i, &low, 64);
        std::memcpy(out + i + 64, &high, 64);
    }
}

template <int TILES>
void panel_int4(const Matrix& m, const Inputs& in, const int64_t* blocks, Panel& acc) {
    Grids of[2] = {grids(m, blocks[0]), grids(m, blocks[1])};
    each_group<TILES>(in, m.padded_columns() / GROUP4, GROUP4, [&](int64_t g, const Sums* products) {
        for (int b = 0; b < 2; ++b) {
            v16 scale = load16(of[b].w_scales + g * ROWS), zero = load16(of[b].zeros + g * ROWS);
            for (int t = 0; t < TILES; ++t) {
#pragma GCC unroll 16
                for (int r = 0; r < ROWS; ++r)
                    acc[t][b][r] += (products[2 * t + b].row(r) - zero * in.sums[t][g * ROWS + r]) *
                                    (scale * in.scales[t][g * ROWS + r]);
            }
        }
    });
}

template <int TILES>
void panel_bfloat16(int64_t columns, const Inputs& in, Panel& acc) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t c = 0; c < columns; c += 32) {
        _tile_loadd(6, in.w[0] + c * 2 * ROWS, 64);
        _tile_loadd(7, in.w[1] + c * 2 * ROWS, 64);
        for (int part = 0; part < 2; ++part) {
            int64_t x = (c / 16 + part) * TILE;
            _tile_loadd(4, in.x[0] + x, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            if constexpr (TILES > 1) {
                _tile_loadd(5, in.x[1] + x, 64);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            }
        }
    }
    _tile_stored(0, acc[0][0], 64);
    _tile_stored(1, acc[0][1], 64);
    if constexpr (TILES > 1) {
        _tile_stored(2, acc[1][0], 64);
        _tile_stored(3, acc[1][1], 64);
    }
}

// As `finish`, of 16 rows of weights from `row` on and `count` rows of activations.
inline void finish_tile(const v16* acc, int64_t row, int64_t rows, const Result& result, float* out, int64_t stride,
                        int64_t count) {
    v16 bias = result.bias ? load16(result.bias + row) : v16{};
    __mmask16 real = __mmask16(rows - row >= ROWS ? 0xffff : (1 << (rows - row)) - 1);
    for (int64_t r = 0; r < count; ++r, out += stride) {
        v16 y = acc[r] + bias;
        if (result.activate) y = activate(y, result.activation);
        if (result.add) y += (v16)_mm512_maskz_loadu_ps(real, out);
        _mm512_mask_storeu_ps(out, real, (__m512)y);
    }
}

// Rows first..last of one or two tiles.
template <int TILES>
void multiply_rows(const Matrix& m, const Rows& rows, int64_t first, int64_t last, int64_t first_block, int64_t last_block,
                   const char* widened, const Result& result) {
    int64_t columns = m.padded_columns(), groups = columns / m.group();
    int64_t width = m.format == Format::bfloat16 ? 4 : 1, x_bytes = ROWS * columns * width;
    int64_t w_bytes = ROWS * columns * (m.format == Format::bfloat16 ? 2 : 1);
    const char* x = reinterpret_cast<const char*>(rows.quantized) + first / ROWS * x_bytes;
    const char* w = widened ? widened - first_block * w_bytes : static_cast<const char*>(m.data);
    const float *scales = rows.scales + first * groups, *sums = rows.sums + first * groups;
    alignas(64) float next[2 * ROWS][64] = {};
    for (int64_t block = first_block; block < last_block; block += 2) {
        int64_t blocks[2] = {block, std::min(block + 1, last_block - 1)};
        Inputs in{{x, x + x_bytes}, {w + blocks[0] * w_bytes, w + blocks[1] * w_bytes}, {scales, scales + ROWS * groups},
                  {sums, sums + ROWS * groups}};
        alignas(64) Panel acc = {};
        if (m.format == Format::bfloat16)
            panel_bfloat16<TILES>(columns, in, acc);
        else if (m.format == Format::int8)
            panel_int8<TILES>(m, in, blocks, acc);
        else
            panel_int4<TILES>(m, in, blocks, acc);
        for (int t = 0; t < TILES; ++t)
            for (int b = 0; b <= blocks[1] - block; ++b) {
                int64_t n = first + t * ROWS, row = blocks[b] * ROWS;
                float* out = result.next ? &next[t * ROWS][row % 64] : result.out + n * result.stride + row;
                finish_tile(acc[t][b], row, m.rows, result, out, result.next ? 64 : result.stride, std::min<int64_t>(ROWS, last - n));
            }
        int64_t end = block + 2;
        if (result.next && (end % 4 == 0 || end >= last_block)) {
            int64_t column = block / 4 * 64;
            for (int64_t n = first; n < last; ++n) {
                for (int64_t c = m.rows; c < column + 64; ++c) next[n - first][c - column] = 0;
                prepare_some(*result.next_matrix, *result.next, n, column, next[n - first]);
            }
        }
    }
}

void multiply_tiles(const Matrix& m, const Rows& rows, int64_t first, int64_t last, int64_t first_block, int64_t last_block,
                    const Result& result) {
    if (rows.count < LEAST || m.format == Format::float32)
        return multiply(m, rows, first, last, first_block, last_block, result);
    int64_t bytes = m.padded_columns() * ROWS;
    uint8_t* widened = nullptr;
    if (m.format == Format::int4) {
        widened = reinterpret_cast<uint8_t*>(memory((last_block - first_block) * bytes));
        for (int64_t block = first_block; block < last_block; ++block)
            widen(m, block, widened + (block - first_block) * bytes);
    }
    Tiles tiles(m.format == Format::int4);
    for (int64_t n = first; n < last; n += 2 * ROWS) {
        int64_t end = std::min(n + 2 * ROWS, last);
        auto some = end - n > ROWS ? multiply_rows<2> : multiply_rows<1>;
        some(m, rows, n, end, first_block, last_block, reinterpret_cast<const char*>(widened), result);
    }
}

// ---- attention of a prompt: products of bfloat16, or of floats as two of them ----

// Keys as tiles [16 keys][d / 32], values as tiles [32 keys][d / 16], each of 1 KiB with neighbours side by side; of each
// tile PARTS, which are `next` numbers apart.
template <int PARTS>
void to_tiles(const Heads& heads, int64_t visible, int64_t size, int64_t width, uint16_t* keys, uint16_t* values,
              int64_t next) {
    for (int64_t start = 0; start < visible; start += PAGE) {
        const char* page = static_cast<const char*>(heads.pages[start / PAGE]);
        const uint16_t* k = reinterpret_cast<const uint16_t*>(page + heads.key_offset);
        const uint16_t* v = reinterpret_cast<const uint16_t*>(page + heads.value_offset);
        for (int64_t j = 0; j < PAGE; j += ROWS)
            for (int64_t d = 0; d < width; d += 2, keys += 2 * ROWS) {
                bool real = d < size;
                split_pairs(real ? load16(k + d * PAGE + j) : v16{}, real ? load16(k + (d + 1) * PAGE + j) : v16{}, keys,
                            next, PARTS);
            }
        for (int64_t d = 0; d < width; d += ROWS)
            for (int64_t j = 0; j < PAGE; j += 2, values += 2 * ROWS) {
                bool first = d < size && start + j < visible, second = d < size && start + j + 1 < visible;
                split_pairs(first ? load16(v + j * size + d) : v16{}, second ? load16(v + (j + 1) * size + d) : v16{},
                            values, next, PARTS);
            }
    }
}

// sums [16][32] = rows x columns, both cut into tiles of 32 numbers to add up: rows [16][stride], columns two neighbouring
// tiles `tile` apart, the next 32 numbers of each `step` further on.
template <int PARTS>
inline void two_tiles(const uint16_t* rows, int64_t stride, int64_t rows_next, const uint16_t* columns, int64_t tile,
                      int64_t step, int64_t columns_next, int64_t steps, float* sums, int64_t sums_stride) {
    _tile_zero(0);
    _tile_zero(1);
    for (int64_t s = 0; s < steps; ++s, rows += 32, columns += step) {
        _tile_loadd(4, rows, stride * 2);
        _tile_loadd(6, columns, 64);
        _tile_loadd(7, columns + tile, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if constexpr (PARTS > 1) {
            _tile_loadd(5, rows + rows_next, stride * 2);
            _tile_dpbf16ps(0, 5, 6);
            _tile_dpbf16ps(1, 5, 7);
            _tile_loadd(6, columns + columns_next, 64);
            _tile_loadd(7, columns + columns_next + tile, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
        }
    }
    _tile_stored(0, sums, sums_stride * 4);
    _tile_stored(1, sums + ROWS, sums_stride * 4);
}

template <int PARTS>
void attend_prompt_in(const Heads& heads, const float* queries, int64_t stride, int64_t count, int64_t visible,
                      int64_t head_size, float scale, float* context, int64_t context_stride) {
    int64_t size = padded(head_size, 16), width = padded(size, 32), length = padded(visible, PAGE);
    int64_t cached = length * width, asked = ROWS * width, seen = ROWS * length;
    auto* keys = reinterpret_cast<uint16_t*>(memory(2 * PARTS * (2 * cached + asked + seen) + 4 * (seen + asked)));
    uint16_t *values = keys + PARTS * cached, *query = values + PARTS * cached, *weights = query + PARTS * asked;
    float *scores = reinterpret_cast<float*>(weights + PARTS * seen), *out = scores + seen;
    to_tiles<PARTS>(heads, visible, size, width, keys, values, cached);
    Tiles tiles;
    for (int64_t n = 0; n < count; n += ROWS) {
        int64_t some = std::min<int64_t>(ROWS, count - n);
        for (int64_t r = 0; r < some; ++r)
            for (int64_t d = 0; d < width; d += ROWS) {
                __mmask16 real = __mmask16(d >= head_size ? 0 : head_size - d >= 16 ? 0xffff : (1 << (head_size - d)) - 1);
                v16 x = (v16)_mm512_maskz_loadu_ps(real, queries + (n + r) * stride + d);
                split(x * scale, query + r * width + d, asked, PARTS);
            }
        for (int64_t j = 0; j < length; j += 32)
            two_tiles<PARTS>(query, width, asked, keys + j * width, ROWS * width, TILE / 2, cached, width / 32, scores + j, length);
        float totals[ROWS];
        for (int64_t r = 0; r < some; ++r) {
            float* row = scores + r * length;
            for (int64_t j = visible; j < length; ++j) row[j] = -INFINITY;
            __m512 most = _mm512_set1_ps(-INFINITY);
            for (int64_t j = 0; j < length; j += ROWS) most = _mm512_max_ps(most, _mm512_loadu_ps(row + j));
            float top = _mm512_reduce_max_ps(most);
            v16 total = {};
            for (int64_t j = 0; j < length; j += ROWS) {
                v16 weight = load16(row + j) - top;
                weight = weight < -86.0f ? v16{} : exponential(weight);
                split(weight, weights + r * length + j, seen, PARTS);
                total += weight;
            }
            totals[r] = 1 / _mm512_reduce_add_ps((__m512)total);
        }
        for (int64_t d = 0; d < width; d += 32)
            two_tiles<PARTS>(weights, length, seen, values + d * 32, TILE / 2, 32 * width, cached, length / 32, out + d, width);
        for (int64_t r = 0; r < some; ++r)
            for (int64_t d = 0; d < head_size; ++d)
                context[(n + r) * context_stride + d] = out[r * width + d] * totals[r];
    }
}

void attend_prompt(const Heads& heads, bool exact, const float* queries, int64_t stride, int64_t count, int64_t visible,
                   int64_t head_size, float scale, float* context, int64_t context_stride) {
    auto attend = exact ? attend_prompt_in<2> : attend_prompt_in<1>;
    attend(heads, queries, stride, count, visible, head_size, scale, context, context_stride);
}

// Whether the processor has tiles and Linux lets this process use them.
bool allowed() {
    unsigned a, b, c, d;
    constexpr unsigned BF16 = 1u << 22, TILE = 1u << 24, INT8 = 1u << 25;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || ~d & (BF16 | TILE | INT8)) return false;
    constexpr long REQUEST = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}

}  // namespace
}  // namespace glmkit
#endif

const glmkit::Kernels* glmkit::amx_kernels() {
#if defined(GLMKIT_AMX)
    static const Kernels kernels{"amx", prepare_tiles, multiply_tiles, normalize, attend, to_half, LEAST, attend_prompt};
    static const bool usable = allowed();
    return usable ? &kernels : nullptr;
#else
    return nullptr;
#endif
}
