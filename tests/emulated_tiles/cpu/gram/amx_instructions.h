// The instructions of AMX in plain C++, in place of csrc/cpu/gram/amx_instructions.h: the kernels around them run on
// any processor with AVX-512. What this cannot show: speed, and what a processor makes of the instructions themselves.
#pragma once

#include <cstdint>
#include <cstring>

namespace itrd::ITRD_ISA {

constexpr int64_t kAmxTileBytes = 1024;

inline bool amx_available() { return true; }

constexpr int8_t kGarbage = 0x55;  // what a tile holds that nobody has loaded or zeroed
inline thread_local int8_t tiles[8][kAmxTileBytes];
inline thread_local bool configured = false;

struct AmxScope {
  AmxScope() {
    std::memset(tiles, kGarbage, sizeof tiles);
    configured = true;
  }
  ~AmxScope() { configured = false; }
  AmxScope(const AmxScope&) = delete;
};

// As the processor would: an illegal instruction.
inline void demand_configuration() {
  if (!configured) __builtin_trap();
}

template <int tile>
inline void tile_load(const int8_t* from) {
  demand_configuration();
  std::memcpy(tiles[tile], from, kAmxTileBytes);
}
template <int tile>
inline void tile_zero() {
  demand_configuration();
  std::memset(tiles[tile], 0, kAmxTileBytes);
}
// Sanitizers would check each of its thousands of steps, all on this thread's own tiles.
template <int tile>
__attribute__((no_sanitize("address", "thread", "undefined"))) inline void tile_multiply() {
  demand_configuration();
  int32_t sums[16][16];
  std::memcpy(sums, tiles[tile], kAmxTileBytes);
  for (int i = 0; i < 16; ++i)
    for (int k = 0; k < 16; ++k)
      for (int j = 0; j < 16; ++j)
        for (int q = 0; q < 4; ++q)
          sums[i][j] += int32_t(tiles[6][64 * i + 4 * k + q]) * int32_t(tiles[7][64 * k + 4 * j + q]);
  std::memcpy(tiles[tile], sums, kAmxTileBytes);
}
template <int tile>
inline void tile_store(int32_t* to, int64_t stride) {
  demand_configuration();
  for (int i = 0; i < 16; ++i) std::memcpy(to + i * stride, tiles[tile] + 64 * i, 64);
}

}  // namespace itrd::ITRD_ISA
