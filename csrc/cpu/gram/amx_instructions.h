// The instructions of AMX that the products use; tests/emulated_tiles has the same in plain C++.
#pragma once

#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

namespace itrd::ITRD_ISA {

constexpr int64_t kAmxTileBytes = 1024;  // 16 rows of 64 bytes

// Whether the processor multiplies tiles of bytes and this process may use them: Linux grants their 8 KiB of state on
// request.
inline bool amx_available() {
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  const bool tiles = d >> 24 & 1, bytes = d >> 25 & 1;
  constexpr long request_permission = 0x1023, tile_data = 18;
  return tiles && bytes && syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}

// While this lives, all tiles of this thread have 16 rows of 64 bytes.
struct AmxScope {
  AmxScope() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } configuration;
    asm volatile("" ::"r"(&configuration) : "memory");
    _tile_loadconfig(&configuration);
  }
  ~AmxScope() { _tile_release(); }
  AmxScope(const AmxScope&) = delete;
};

// The intrinsics want literal numbers, and do not say that they read memory.
template <int tile>
inline void tile_load(const int8_t* from) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(int64_t(64)), "i"(tile));
}
template <int tile>
inline void tile_zero() {
  asm volatile("tilezero %%tmm%c0" ::"i"(tile));
}
// Of bytes, onto the 16 × 16 sums of a tile: sums_ij += Σ_kq x_i,4k+q y_k,4j+q, x in tile 6 and y in tile 7.
template <int tile>
inline void tile_multiply() {
  asm volatile("tdpbssd %%tmm7, %%tmm6, %%tmm%c0" ::"i"(tile));
}
template <int tile>
inline void tile_store(int32_t* to, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride * int64_t(sizeof(int32_t))), "i"(tile)
               : "memory");
}

}  // namespace itrd::ITRD_ISA
