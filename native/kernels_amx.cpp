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

namespace glmkit {
namespace {

constexpr int FEW = 8;         // rows of activations; up to so many are multiplied in tiles of half the height
constexpr int TILE = 1024;     // bytes: 16 rows of 64
constexpr int64_t NEAR = 1024; // columns of a row tile that stay in the first cache while BLOCKS go by

// Fewer rows of activations are multiplied sooner without tiles, the more so where weights have to be widened.
bool tiled(const Matrix& m, int64_t rows) {
    switch (m.format) {
        case Format::float32:
        case Format::float16: return false;
        case Format::bfloat16: return rows >= 8 && !m.exact;
        case Format::int8: return rows >= 8;
        case Format::int4: return rows >= 16;
    }
    return false;
}

struct alignas(64) Layout {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};
};
// Tiles 0 to 3 for sums, 4 and 5 for `count` rows of `bytes` bytes of activations, 6 and 7 for weights.
constexpr Layout layout(int count, int bytes) {
    Layout all;
    for (int tile = 0; tile < 8; ++tile) {
        all.bytes[tile] = uint16_t(tile == 4 || tile == 5 ? bytes : 64);
        all.rows[tile] = uint8_t(tile < 6 ? count : bytes / 4);
    }
    return all;
}

// Constants: GCC 12 forgets what is written to memory just before it is loaded as a configuration. LOW: of few rows, HALF: of groups of int4.
constexpr Layout WIDE = layout(ROWS, 64), LOW = layout(FEW, 64), HALF = layout(ROWS, 32);

// While this lives, tiles are of `layout`.
struct Tiles {
    explicit Tiles(const Layout& layout = WIDE) { _tile_loadconfig(&layout); }
    ~Tiles() { _tile_release(); }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;
};

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
        for (int64_t i = 0; i < 64; i += ROWS) split(wide(x + i), out + i / 32 * TILE + i % 32, TILE / 2, 2);
        return;
    }
    int64_t group = m.group(), groups = columns / group;
    quantize_columns(m, x, rows.quantized + tile, rows,
                     [&](int64_t i) { return (n / ROWS * groups + (c + i) / group) * ROWS + n % ROWS; });
}

void prepare_tiles(const Matrix& m, const Rows& rows, int64_t first, int64_t last) {
    if (!tiled(m, rows.count)) return prepare(m, rows, first, last);
    int64_t columns = m.padded_columns();
    for (int64_t n = first; n < last; ++n)
        for (int64_t c = 0; c < columns; c += 64) prepare_some(m, rows, n, c, rows.values + n * columns + c);
}

struct alignas(64) Tile {
    int32_t of[ROWS][ROWS];

    v16 row(int r) const { return (v16)_mm512_cvtepi32_ps(_mm512_load_si512(of[r])); }
};

constexpr int LAG = 4;  // tiles of sums, which follow each other

// The two functions below are called with a constant; their instructions name tiles in no other way.
inline void begin_tile(int tile, const char* x, const char* w) {
    _tile_loadd(4, x, 64);
    _tile_loadd(6, w, 64);
    switch (tile) {
        case 0: _tile_zero(0); _tile_dpbssd(0, 4, 6); break;
        case 1: _tile_zero(1); _tile_dpbssd(1, 4, 6); break;
        case 2: _tile_zero(2); _tile_dpbssd(2, 4, 6); break;
        case 3: _tile_zero(3); _tile_dpbssd(3, 4, 6); break;
    }
}

inline void store_tile(int tile, Tile& sums) {
    switch (tile) {
        case 0: _tile_stored(0, sums.of, 64); break;
        case 1: _tile_stored(1, sums.of, 64); break;
        case 2: _tile_stored(2, sums.of, 64); break;
        case 3: _tile_stored(3, sums.of, 64); break;
    }
}

// acc += the sums of one group of columns, scaled.
template <int COUNT, Format FORMAT>
[[gnu::always_inline]] inline void add_group(const Tile& sums, const float* scale, const uint16_t* w_scale, v16 (&acc)[COUNT]) {
    v16 of_rows;
    if constexpr (FORMAT == Format::int4) of_rows = wide(w_scale);
#pragma GCC unroll 16
    for (int r = 0; r < COUNT; ++r) {
        v16 factor = (v16)_mm512_set1_ps(scale[r]);  // v16{} + scale[r] would be an addition and two more instructions
        if constexpr (FORMAT == Format::int4) factor *= of_rows;
        acc[r] += sums.row(r) * factor;
    }
}

// out [COUNT] += products of COUNT rows of activations with a block of weights, over so many groups of columns. A tile is
// stored LAG products after its own and read a product later still, so that nothing waits for it; the sums of floats stay in
// registers.
template <int COUNT, Format FORMAT>
void add_groups(const char* x, const char* w, int64_t groups, const float* scales, const uint16_t* w_scales, v16* out) {
    constexpr int64_t WIDTH = FORMAT == Format::int4 ? GROUP4 : GROUP8;
    Tile sums[LAG];
    v16 acc[COUNT];
#pragma GCC unroll 16
    for (int r = 0; r < COUNT; ++r) acc[r] = out[r];
    for (int64_t start = 0; start <= groups + LAG; start += LAG)
#pragma GCC unroll 4
        for (int tile = 0; tile < LAG; ++tile) {
            int64_t g = start + tile, stored = g - LAG, read = stored - 1;
            if (stored >= 0 && stored < groups) store_tile(tile, sums[tile]);
            if (g < groups) begin_tile(tile, x + g * WIDTH / 64 * TILE + g * WIDTH % 64, w + g * WIDTH * ROWS);
            if (read < 0 || read >= groups) continue;
            const uint16_t* w_scale = FORMAT == Format::int4 ? w_scales + read * ROWS : nullptr;
            add_group<COUNT, FORMAT>(sums[(tile + LAG - 1) % LAG], scales + read * ROWS, w_scale, acc);
        }
#pragma GCC unroll 16
    for (int r = 0; r < COUNT; ++r) out[r] = acc[r];
}

// Products of a tile's rows of activations, or of two, with up to BLOCKS blocks: [tile][row][block][16].
using Panel = v16[2][ROWS][BLOCKS];

// From row n of activations on, with blocks whose bytes (or widened ones) are at `w`.
template <int COUNT, Format FORMAT>
void multiply_integers(const Matrix& m, const Rows& rows, int64_t n, const char* w, int64_t block, int64_t blocks, Panel& panel) {
    int64_t columns = m.padded_columns(), group = m.group();
    const char* x = reinterpret_cast<const char*>(rows.quantized) + n * columns;
    const float* scales = rows.scales + n * (columns / group);
    v16 acc[BLOCKS][COUNT] = {};
    for (int64_t c = 0; c < columns; c += NEAR)
        for (int64_t b = 0; b < blocks; ++b) {
            const uint16_t* w_scales = FORMAT == Format::int4 ? grids(m, block + b).w_scales + c / group * ROWS : nullptr;
            add_groups<COUNT, FORMAT>(x + c * ROWS, w + (b * columns + c) * ROWS, std::min(NEAR, columns - c) / group,
                                      scales + c / group * ROWS, w_scales, acc[b]);
        }
    for (int64_t b = 0; b < blocks; ++b) {
        v16 of_rows = FORMAT == Format::int8 ? wide(static_cast<const float*>(m.scales) + (block + b) * ROWS) : v16{} + 1.0f;
        for (int r = 0; r < COUNT; ++r) panel[0][r][b] = acc[b][r] * of_rows;
    }
}

template <int TILES>
void multiply_bfloat16(const Matrix& m, const Rows& rows, int64_t n, const char* w, int64_t blocks, Panel& panel) {
    int64_t columns = m.padded_columns(), next_x = ROWS * columns * 4, next_w = ROWS * columns * 2, stride = sizeof panel[0][0];
    const char* x = reinterpret_cast<const char*>(rows.quantized) + n * columns * 4;
    for (int64_t b = 0; b < blocks; b += 2, w += 2 * next_w) {
        bool pair = b + 1 < blocks;
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t c = 0; c < columns; c += 32) {
            _tile_loadd(6, w + c * 2 * ROWS, 64);
            _tile_loadd(7, w + (pair ? next_w : 0) + c * 2 * ROWS, 64);
            for (int part = 0; part < 2; ++part) {
                int64_t at = (c / 16 + part) * TILE;
                _tile_loadd(4, x + at, 64);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 4, 7);
                if constexpr (TILES > 1) {
                    _tile_loadd(5, x + next_x + at, 64);
                    _tile_dpbf16ps(2, 5, 6);
                    _tile_dpbf16ps(3, 5, 7);
                }
            }
        }
        _tile_stored(0, &panel[0][0][b], stride);
        if (pair) _tile_stored(1, &panel[0][0][b + 1], stride);
        if constexpr (TILES > 1) {
            _tile_stored(2, &panel[1][0][b], stride);
            if (pair) _tile_stored(3, &panel[1][0][b + 1], stride);
        }
    }
}

void multiply_tiles(const Matrix& m, const Rows& rows, int64_t first, int64_t last, int64_t first_block, int64_t last_block,
                    const Result& result) {
    if (!tiled(m, rows.count)) return multiply(m, rows, first, last, first_block, last_block, result);
    bool few = last - first <= FEW;
    int64_t most = m.format == Format::bfloat16 ? 2 * ROWS : ROWS;
    Tiles tiles(m.format == Format::int4 ? HALF : few ? LOW : WIDE);
    for (int64_t block = first_block; block < last_block; block += BLOCKS) {
        int64_t blocks = std::min(BLOCKS, last_block - block), row = block * ROWS;
        const char* w = blocks_of(m, block, blocks, 0);
        for (int64_t n = first; n < last; n += most) {
            int64_t count = std::min(most, last - n);
            alignas(64) Panel panel;
            if (m.format == Format::bfloat16) {
                auto multiply = count > ROWS ? multiply_bfloat16<2> : multiply_bfloat16<1>;
                multiply(m, rows, n, w, blocks, panel);
            } else if (m.format == Format::int8) {
                auto multiply = few ? multiply_integers<FEW, Format::int8> : multiply_integers<ROWS, Format::int8>;
                multiply(m, rows, n, w, block, blocks, panel);
            } else {
                multiply_integers<ROWS, Format::int4>(m, rows, n, w, block, blocks, panel);
            }
            for (int64_t r = 0; r < count; ++r) {
                v16 y[BLOCKS];
                for (int64_t b = 0; b < BLOCKS; ++b) y[b] = b < blocks ? panel[r / ROWS][r % ROWS][b] : v16{};
                finish_blocks(y, row, m.rows, result, n + r, prepare_some);
            }
        }
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
                split_pairs(real ? wide(k + d * PAGE + j) : v16{}, real ? wide(k + (d + 1) * PAGE + j) : v16{}, keys,
                            next, PARTS);
            }
        for (int64_t d = 0; d < width; d += ROWS)
            for (int64_t j = 0; j < PAGE; j += 2, values += 2 * ROWS) {
                bool first = d < size && start + j < visible, second = d < size && start + j + 1 < visible;
                split_pairs(first ? wide(v + j * size + d) : v16{}, second ? wide(v + (j + 1) * size + d) : v16{},
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
            totals[r] = 1 / exponentials(scores + r * length, visible, length, [&](int64_t j, v16 weight) {
                split(weight, weights + r * length + j, seen, PARTS);
            });
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
    static const Kernels kernels{"amx", prepare_tiles, multiply_tiles, normalize, attend, to_half, peak, tiled, attend_prompt};
    static const bool usable = allowed();
    return usable ? &kernels : nullptr;
#else
    return nullptr;
#endif
}
