// Compiled with the flags of AVX2 and -mavxvnni where the compiler knows them.
#include "kernels_impl.h"

const glmkit::Kernels* glmkit::avxvnni_kernels() {
#if defined(__AVXVNNI__)
    static const Kernels kernels = plain_kernels("avxvnni");
    return &kernels;
#else
    return nullptr;
#endif
}
