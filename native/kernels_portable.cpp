#include "kernels_impl.h"

const glmkit::Kernels* glmkit::portable_kernels() {
    static const Kernels kernels = plain_kernels("portable");
    return &kernels;
}
