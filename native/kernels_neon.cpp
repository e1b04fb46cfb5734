// What every 64-bit ARM processor has; `-DGLMKIT_EMULATE_NEON` compiles it for others.
#include "kernels.h"

#if defined(__aarch64__) || defined(GLMKIT_EMULATE_NEON)
#define GLMKIT_NEON
#include "kernels_impl.h"

const glmkit::Kernels* glmkit::neon_kernels() {
    static const Kernels kernels = plain_kernels("neon");
    return &kernels;
}
#else
const glmkit::Kernels* glmkit::neon_kernels() { return nullptr; }
#endif
