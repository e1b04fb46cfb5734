// Compiled with -mavx2 -mfma -mf16c where the compiler knows them.
#include "kernels_impl.h"

const glmkit::Kernels* glmkit::avx2_kernels() {
#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
    static const Kernels kernels = plain_kernels("avx2");
    return &kernels;
#else
    return nullptr;
#endif
}
