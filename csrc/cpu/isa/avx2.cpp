// The kernels for AVX2 and FMA.
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include "cpu/isa/prelude.h"
#define ITRD_ISA avx2
#define ITRD_VECTOR_BYTES 32
#define ITRD_REGISTER_ROWS 4
#define ITRD_REGISTER_VECTORS 2
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,bmi,bmi2,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,bmi,bmi2,f16c")
#endif
#include "cpu/isa/table.h"
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
