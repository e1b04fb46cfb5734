// Compiled with -march=armv8.2-a+dotprod where the compiler knows it.
#include "kernels.h"

#if defined(__ARM_FEATURE_DOTPROD)
#define GLMKIT_NEON
#include "kernels_impl.h"

const glmkit::Kernels* glmkit::dotprod_kernels() {
    static const Kernels kernels = plain_kernels("dotprod");
    return &kernels;
}
#else
const glmkit::Kernels* glmkit::dotprod_kernels() { return nullptr; }
#endif
