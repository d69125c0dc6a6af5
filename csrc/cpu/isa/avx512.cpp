// The kernels for AVX-512.
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include "cpu/isa/prelude.h"
#define ITRD_ISA avx512
#define ITRD_VECTOR_BYTES 64
#define ITRD_REGISTER_ROWS 8
#define ITRD_REGISTER_VECTORS 2
#ifdef __clang__
#pragma clang attribute push(                                                                      \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,bmi,bmi2,f16c"))), \
    apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,bmi,bmi2,f16c")
#endif
#include "cpu/isa/table.h"
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
