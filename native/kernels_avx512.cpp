#include "kernels.h"

const glmkit::Kernels* glmkit::avx512_kernels() { return nullptr; }
