// The kernels for AVX-512 whose Gram products run on the tiles of AMX.
#if defined(__x86_64__) && defined(__linux__) && (defined(__GNUC__) || defined(__clang__))
#include <immintrin.h>

#include "cpu/isa/prelude.h"
#define ITRD_ISA amx
#define ITRD_VECTOR_BYTES 64
#define ITRD_REGISTER_ROWS 8
#define ITRD_REGISTER_VECTORS 2
#define ITRD_AMX
#ifdef __clang__
#pragma clang attribute push(                                                                   \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,bmi,bmi2,f16c," \
                          "amx-tile,amx-int8"))),                                               \
    apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,bmi,bmi2,f16c,amx-tile,amx-int8")
#endif
#include "cpu/isa/table.h"

namespace itrd::amx {

bool available() { return amx_available(); }

}  // namespace itrd::amx
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
