// Compiled with AVX-512 and BF16 where the compiler knows them: prompts attend by products of bfloat16.
#if defined(__AVX512VNNI__) && defined(__AVX512BF16__)
#include "kernels_avx512.h"

const glmkit::Kernels* glmkit::avx512bf16_kernels() { return &kernels; }
#else
#include "kernels.h"

const glmkit::Kernels* glmkit::avx512bf16_kernels() { return nullptr; }
#endif
