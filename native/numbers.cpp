// Number formats, and rows of the packed layout that `kernels.h` describes.
#include <cmath>
#include <cstring>

#include "kernels.h"

namespace glmkit {

float bfloat_to_float(uint16_t x) {
    uint32_t bits = uint32_t(x) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

float half_to_float(uint16_t x) {
    uint32_t sign = uint32_t(x & 0x8000) << 16, exponent = (x >> 10) & 0x1f, mantissa = x & 0x3ff, bits;
    if (exponent == 0x1f) {
        bits = sign | 0x7f800000 | (mantissa << 13);
    } else if (exponent) {
        bits = sign | ((exponent + 112) << 23) | (mantissa << 13);
    } else {
        float value = float(mantissa) * 0x1p-24f;
        return sign ? -value : value;
    }
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

uint16_t float_to_half(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    uint16_t sign = uint16_t((bits >> 16) & 0x8000);
    uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return sign | 0x7e00;   // NaN
    if (magnitude >= 0x477ff000) return sign | 0x7c00;  // beyond the largest: infinity
    if (magnitude < 0x38800000) {                       // subnormal: units of 2^-24
        float value;
        std::memcpy(&value, &magnitude, 4);
        return sign | uint16_t(std::nearbyint(value * 0x1p24f));
    }
    magnitude += 0xfff + ((magnitude >> 13) & 1);
    return sign | uint16_t((magnitude - 0x38000000) >> 13);
}

namespace {

// Where column c of row r stands, in numbers (int4: the byte; the nibble is told by bit 2 of the column; bfloat16: the low byte).
int64_t place(const Matrix& m, int64_t r, int64_t c) {
    int64_t block = r / ROWS, row = r % ROWS, columns = m.padded_columns();
    switch (m.format) {
        case Format::float32:
        case Format::float16: return (block * columns + c) * ROWS + row;
        case Format::bfloat16:
            return (block * columns + c) / 8 * CODED + c % 8 / 4 * 64 + (row / 4 * 2 + c % 4 / 2) * 8 + row % 4 * 2 + c % 2;
        case Format::int8: return ((block * columns / 4 + c / 4) * ROWS + row) * 4 + c % 4;
        case Format::int4: return ((block * columns / 8 + c / 8) * ROWS + row) * 4 + c % 4;
    }
    return 0;
}

// The high byte of a bfloat16, of its code in a block.
uint8_t high_byte(uint8_t code, uint8_t first) {
    uint8_t place = code & 7;
    return uint8_t((place ? place + first - 1 : 0) | (code & 8) << 4);
}

int64_t group_place(const Matrix& m, int64_t r, int64_t c) {
    return (r / ROWS * (m.padded_columns() / GROUP4) + c / GROUP4) * ROWS + r % ROWS;
}

}  // namespace

void unpack_row(const Matrix& m, int64_t r, float* out) {
    for (int64_t c = 0; c < m.columns; ++c) {
        int64_t at = place(m, r, c);
        switch (m.format) {
            case Format::float32: out[c] = static_cast<const float*>(m.data)[at]; break;
            case Format::float16: out[c] = half_to_float(static_cast<const uint16_t*>(m.data)[at]); break;
            case Format::bfloat16: {
                auto* bytes = static_cast<const uint8_t*>(m.data);
                uint8_t codes = bytes[at + 128 - (c & 4) * 16], code = c & 4 ? codes >> 4 : codes & 15;
                out[c] = bfloat_to_float(uint16_t(high_byte(code, m.firsts[r / ROWS]) << 8 | bytes[at]));
                break;
            }
            case Format::int8:
                out[c] = static_cast<const int8_t*>(m.data)[at] * static_cast<const float*>(m.scales)[r];
                break;
            case Format::int4: {
                int64_t group = group_place(m, r, c);
                int step = static_cast<const uint8_t*>(m.data)[at] >> (c & 4 ? 4 : 0) & 15;
                out[c] = half_to_float(static_cast<const uint16_t*>(m.scales)[group]) * (step - m.zeros[group]);
            }
        }
    }
    if (m.format != Format::bfloat16) return;
    for (const Stray* stray = m.strays(r / ROWS); stray < m.strays(r / ROWS + 1); ++stray)
        if (stray->place % ROWS == r % ROWS) out[stray->place / ROWS] = bfloat_to_float(uint16_t(stray->bits));
}

}  // namespace glmkit
