// The kernels for AVX-512 whose products of the Gram term of bfloat16 multiply two numbers a lane.
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include <immintrin.h>

#include "cpu/isa/prelude.h"
#define ITRD_ISA avx512_bf16
#define VECTOR_BYTES 64
#define TILE_ROWS 8
#define TILE_VECTORS 2
#define ITRD_BF16
#ifdef __clang__
#pragma clang attribute push(                                                                                 \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512bf16,avx2,fma,bmi,bmi2,f16c"))), \
    apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512bf16,avx2,fma,bmi,bmi2,f16c")
#endif
#include "cpu/isa/table.h"
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
