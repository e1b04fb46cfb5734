#include "kernels_impl.h"

const glmkit::Kernels* glmkit::portable_kernels() {
    static const Kernels kernels{"portable", prepare, multiply, normalize, attend, to_half, peak, nullptr, nullptr};
    return &kernels;
}
