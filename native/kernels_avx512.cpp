// Compiled with AVX-512 (F, BW, DQ, VL, VNNI) where the compiler knows it. With GLMKIT_EMULATE_AVX512 plain C++ does what its
// one own instruction does, so that these kernels can be tested on other processors.
#if defined(__AVX512VNNI__) || defined(GLMKIT_EMULATE_AVX512)
#define GLMKIT_AVX512
#endif

#include "kernels_impl.h"

const glmkit::Kernels* glmkit::avx512_kernels() {
#if defined(GLMKIT_AVX512)
    static const Kernels kernels{"avx512", prepare, multiply, normalize, attend, to_half, nullptr, nullptr};
    return &kernels;
#else
    return nullptr;
#endif
}
