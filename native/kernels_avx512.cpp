// Compiled with AVX-512 (F, BW, DQ, VL, VNNI) where the compiler knows it. With GLMKIT_EMULATE_AVX512 plain C++ does what its
// own instructions do, so that these kernels can be tested on other processors.
#if defined(__AVX512VNNI__) || defined(GLMKIT_EMULATE_AVX512)
#include "kernels_avx512.h"

const glmkit::Kernels* glmkit::avx512_kernels() { return &kernels; }
#else
#include "kernels.h"

const glmkit::Kernels* glmkit::avx512_kernels() { return nullptr; }
#endif
