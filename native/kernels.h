// What the forward pass asks of a processor: one table of functions for each instruction set.
//
// In: packed matrices, rows of activations. Out: rows of results. Knows no layer and no sequence.
//
// A matrix W [rows, columns] is stored in blocks of 16 rows, each block one stream of memory:
//   float32   [block][column][16], and so float16
//   bfloat16  in 12 bits, without loss: [block][column / 8], 64 bytes of low bytes of columns c..c+3, 64 of columns c+4..c+7, and 64
//             of codes of the high bytes, c..c+3 in the low nibbles, c+4..c+7 in the high ones; of four columns they lie as
//             [row / 4][column / 2][row % 4][column % 2], so that low and high bytes, interleaved, are [column / 2][16][2]. A code
//             is the sign and, in three bits, 0 for a high byte of 0 and n for the block's `first` + n - 1. What has no code is
//             0 here and one of the block's strays, which are in order of their places
//   int8      [block][column / 4][16][4], one float32 scale a row
//   int4      [block][column / 8][16][4] bytes: columns c..c+3 in the low nibbles, c+4..c+7 in the high ones; for 16 rows
//             and each group of 32 columns a float16 scale and a zero point 0..15: w = scale * (nibble - zero)
// Columns are filled up with zeros to a multiple of 64, rows to a multiple of 16.
#pragma once

#include <cstdint>

namespace glmkit {

constexpr int ROWS = 16;       // rows of a block
constexpr int COLUMNS = 64;    // columns are filled up to a multiple of this
constexpr int GROUP8 = 64;     // columns that share an activation scale with int8 weights
constexpr int GROUP4 = 32;     // columns that share a scale, of activations and of int4 weights
constexpr int CODED = 192;     // bytes of 8 columns of 16 rows of bfloat16
constexpr int PAGE = 32;       // tokens of a page of the cache
constexpr int QUERIES = 4;     // queries that attention handles together

enum class Format : int32_t { float32 = 0, bfloat16 = 1, int8 = 2, int4 = 3, float16 = 4 };
enum class Activation : int32_t { gelu = 0, gelu_tanh = 1, relu = 2 };

inline int64_t padded(int64_t size, int64_t multiple) { return (size + multiple - 1) / multiple * multiple; }

// A number of bfloat16 that has no code in its block.
struct Stray {
    uint32_t place;  // column * 16 + row % 16
    uint32_t bits;
};

struct Matrix {
    Format format = Format::float32;
    bool exact = false;             // whether what it is multiplied with must not be rounded
    int64_t rows = 0, columns = 0;  // without filling
    const void* data = nullptr;
    const void* scales = nullptr;   // int8: float32 [padded rows]; int4: float16 [block][group][16]
    const uint8_t* zeros = nullptr;    // int4: [block][group][16]
    const uint8_t* firsts = nullptr;   // bfloat16: [block]
    const uint32_t* begins = nullptr;  // bfloat16: the first of each block's strays, [blocks + 1]; the strays follow

    int64_t padded_columns() const { return padded(columns, COLUMNS); }
    int64_t blocks() const { return padded(rows, ROWS) / ROWS; }
    int group() const { return format == Format::int4 ? GROUP4 : GROUP8; }
    bool integer() const { return format == Format::int8 || format == Format::int4; }
    // Of a block, where its strays begin and where they end.
    const Stray* strays(int64_t block) const { return reinterpret_cast<const Stray*>(begins + blocks() + 1) + begins[block]; }
};

// Rows of activations as a matrix wants them: float32, or int8 with a scale and a sum for each group.
struct Rows {
    int64_t count;                  // n
    const float* values = nullptr;  // [n, padded columns]
    int8_t* quantized = nullptr;  // [n, padded columns]; where tiles are made, as kernels_amx.cpp wants it
    float* scales = nullptr;      // [n, groups]
    float* sums = nullptr;        // [n, groups], of the quantized values
};

// What is done with W x: `out` [n, stride] = (add ? out : 0) + act(W x + bias).
struct Result {
    float* out;
    int64_t stride;
    const float* bias = nullptr;  // [padded rows]
    bool add = false;
    bool activate = false;
    Activation activation = Activation::gelu;
    // Where `tiled` says so: the numbers go, prepared, to the rows of the matrix that reads them, and `out` is not written.
    const Matrix* next_matrix = nullptr;
    const Rows* next = nullptr;
};

// Where the keys and values of one head of one layer lie: page p holds those of tokens p * PAGE and on, keys as [padded head
// size][PAGE], so that neighbours in memory are of different tokens, values as [PAGE][padded head size].
struct Heads {
    const void* const* pages;  // one pointer for each page of the sequence
    int64_t key_offset, value_offset;  // bytes from a page's start
};

// The largest of some scores and the sum of the exponentials of all, each less that one; no number where one of them is none.
struct Peak {
    float best, total;
};

struct Kernels {
    const char* name;
    // Quantizes (or, for matrices of floats, leaves) rows first..last of `rows.values`, whose filling is set to zero.
    void (*prepare)(const Matrix&, const Rows&, int64_t first, int64_t last);
    // Multiplies blocks first_block..last_block with rows first..last.
    void (*multiply)(const Matrix&, const Rows&, int64_t first, int64_t last, int64_t first_block, int64_t last_block,
                     const Result&);
    // y = (x - mean) / sqrt(variance + eps) * weight + bias, of one row.
    void (*normalize)(const float* x, const float* weight, const float* bias, float eps, int64_t n, float* y);
    // Context of up to QUERIES queries, [count][padded head size]; query q sees the first `visible[q]` tokens.
    void (*attend)(const Heads&, bool half, const float* queries, int count, const int64_t* visible, int64_t head_size,
                   float scale, float* scores, float* context);
    void (*to_half)(const float* x, uint16_t* y, int64_t n);
    // Of n scores, those left out that are barred; where all are, the largest is -infinity.
    Peak (*peak)(const float* scores, const uint8_t* barred, int64_t n);
    // Whether so many rows are multiplied with four blocks at a time, so that `Result::next` is obeyed. AMX wants bfloat16
    // matrices' rows prepared too then. Null: never.
    bool (*tiled)(const Matrix&, int64_t rows);
    // Context of `count` queries that see the same first `visible` tokens, whose keys and values are float16; maybe as if all
    // were bfloat16 unless `exact`. Null where it is no faster than `attend`.
    void (*attend_prompt)(const Heads&, bool exact, const float* queries, int64_t stride, int64_t count, int64_t visible,
                          int64_t head_size, float scale, float* context, int64_t context_stride);
};

const Kernels* portable_kernels();
const Kernels* avx2_kernels();  // null where it was not built, as are the next ones
const Kernels* avxvnni_kernels();
const Kernels* avx512_kernels();
const Kernels* avx512bf16_kernels();
const Kernels* neon_kernels();
const Kernels* dotprod_kernels();
const Kernels* amx_kernels();     // null where it was not built or cannot be used here; to be asked where AVX-512 is

// Number formats, one number at a time.
float half_to_float(uint16_t x);
uint16_t float_to_half(float x);
float bfloat_to_float(uint16_t x);

// Row `row` of a packed matrix as float32 [columns].
void unpack_row(const Matrix&, int64_t row, float* out);

}  // namespace glmkit
