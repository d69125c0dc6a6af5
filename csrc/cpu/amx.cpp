// The kernels for AVX-512 whose products of the Gram term run on AMX tiles.
#if defined(__x86_64__) && defined(__linux__) && (defined(__GNUC__) || defined(__clang__))
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cpu/standard.h"
#define ITRD_ISA amx
#define VECTOR_BYTES 64
#define TILE_ROWS 8
#define TILE_VECTORS 2
#define ITRD_TILES
#ifdef __clang__
#pragma clang attribute push(                                                                   \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,bmi,bmi2,f16c," \
                          "amx-tile,amx-int8"))),                                               \
    apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,bmi,bmi2,f16c,amx-tile,amx-int8")
#endif
#include "cpu/kernels.h"

namespace itrd::amx {

// Whether the processor multiplies tiles of bytes and this process may use them: Linux grants their 8 KiB of state on
// request.
bool available() {
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  const bool tiles = d >> 24 & 1, bytes = d >> 25 & 1;
  constexpr long ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
  return tiles && bytes && syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

}  // namespace itrd::amx
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
