// AMX in plain C++, for `-include`: what kernels_amx.cpp does can be tested wherever AVX-512 with BF16 is.
//
// In: the same intrinsics. Out: what the manual says they do (Intel's Architecture Instruction Set Extensions reference, chapter
// 3). A tile that is used otherwise than it was configured ends the program, as the instruction does.
#if defined(__AMX_INT8__) && defined(__AVX512BF16__)
#pragma once

#include <cpuid.h>
#include <immintrin.h>
#include <unistd.h>
#include <sys/syscall.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace emulated_amx {

struct Tiles {
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } layout = {};
    uint8_t data[8][16][64];

    void need(bool good) const {
        if (!good || layout.palette != 1) std::abort();
    }
    int rows(int tile) const {
        need(layout.rows[tile] >= 1 && layout.rows[tile] <= 16);
        return layout.rows[tile];
    }
    int bytes(int tile) const {
        need(layout.bytes[tile] >= 4 && layout.bytes[tile] <= 64 && layout.bytes[tile] % 4 == 0);
        return layout.bytes[tile];
    }
    template <typename Number>
    Number at(int tile, int row, int i) const {
        Number x;
        std::memcpy(&x, data[tile][row] + i * int(sizeof x), sizeof x);
        return x;
    }
    // sums[m][n] += products(row m of a, row k of b, its n-th four bytes), for all k.
    template <typename Sum, typename Products>
    void multiply(int sums, int a, int b, const Products& products) {
        need(rows(a) == rows(sums) && rows(b) == bytes(a) / 4 && bytes(b) == bytes(sums));
        for (int m = 0; m < rows(sums); ++m)
            for (int n = 0; n < bytes(sums) / 4; ++n) {
                Sum sum = at<Sum>(sums, m, n);
                for (int k = 0; k < rows(b); ++k) sum += products(m, k, n);
                std::memcpy(data[sums][m] + 4 * n, &sum, 4);
            }
    }
};

inline thread_local Tiles tiles;

inline void loadconfig(const void* layout) {
    std::memcpy(&tiles.layout, layout, 64);
    std::memset(tiles.data, 0, sizeof tiles.data);
}

inline void release() { tiles.layout.palette = 0; }

inline void zero(int tile) {
    tiles.need(tiles.rows(tile) > 0);
    std::memset(tiles.data[tile], 0, sizeof tiles.data[tile]);
}

inline void load(int tile, const void* from, int64_t stride) {
    std::memset(tiles.data[tile], 0, sizeof tiles.data[tile]);
    for (int m = 0; m < tiles.rows(tile); ++m)
        std::memcpy(tiles.data[tile][m], static_cast<const char*>(from) + m * stride, size_t(tiles.bytes(tile)));
}

inline void store(int tile, void* to, int64_t stride) {
    for (int m = 0; m < tiles.rows(tile); ++m)
        std::memcpy(static_cast<char*>(to) + m * stride, tiles.data[tile][m], size_t(tiles.bytes(tile)));
}

inline void dpbssd(int sums, int a, int b) {
    tiles.multiply<int32_t>(sums, a, b, [=](int m, int k, int n) {
        int32_t sum = 0;
        for (int i = 0; i < 4; ++i) sum += tiles.at<int8_t>(a, m, 4 * k + i) * tiles.at<int8_t>(b, k, 4 * n + i);
        return sum;
    });
}

inline float widened(uint16_t x) {
    uint32_t bits = uint32_t(x) << 16;
    float y;
    std::memcpy(&y, &bits, 4);
    return y;
}

inline void dpbf16ps(int sums, int a, int b) {
    tiles.multiply<float>(sums, a, b, [=](int m, int k, int n) {
        float sum = 0;
        for (int i = 0; i < 2; ++i)
            sum += widened(tiles.at<uint16_t>(a, m, 2 * k + i)) * widened(tiles.at<uint16_t>(b, k, 2 * n + i));
        return sum;
    });
}

// The processor says that it has AMX, and Linux that it may be used.
inline int everything(unsigned* d) {
    *d = ~0u;
    return 1;
}

}  // namespace emulated_amx

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbssd
#undef _tile_dpbf16ps
#define _tile_loadconfig emulated_amx::loadconfig
#define _tile_release emulated_amx::release
#define _tile_zero emulated_amx::zero
#define _tile_loadd emulated_amx::load
#define _tile_stored emulated_amx::store
#define _tile_dpbssd emulated_amx::dpbssd
#define _tile_dpbf16ps emulated_amx::dpbf16ps
#define __get_cpuid_count(leaf, part, a, b, c, d) emulated_amx::everything(d)
#define syscall(...) 0L
#endif
