// The kernels for AVX-512.
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include "cpu/standard.h"
#define ITRD_ISA avx512
#define VECTOR_BYTES 64
#define TILE_ROWS 8
#define TILE_VECTORS 2
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("arch=x86-64-v4"))), apply_to = function)
#else
#pragma GCC target("arch=x86-64-v4")
#endif
#include "cpu/kernels.h"
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
