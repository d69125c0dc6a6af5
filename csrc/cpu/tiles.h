// Products of 32 × 32 numbers on the AMX tiles, of numbers taken apart into bfloat16 slices.
//
// x = x₀ + x₁ + x₂, each slice the rounding of what the ones before leave: three hold float32's 24 bits. Slices
// multiply exactly and sum in float32. x_a y_b is of order 2^-8(a+b), so products below the last slice's weight are
// left out: six of nine remain for float32. Of each block the small ones are summed first.
#pragma once

#include "cpu/macro.h"
#include "cpu/simd.h"

namespace itrd::ITRD_ISA {

using Word = uint16_t;
constexpr int64_t BLOCK_WORDS = PANEL * PANEL;            // one slice of 32 × 32 numbers: two tiles, of 16 × 32
typedef uint32_t Pairs __attribute__((vector_size(64)));  // 16 pairs of words

// Slices of a feature and of an entry of W: a number of T is exact; W has as many bits as the gradient is worth.
template <class T>
constexpr int FEATURE_SLICES = std::is_same_v<T, BFloat16> ? 1
                               : std::is_same_v<T, Half>   ? 2
                                                           : 3;
template <class T>
constexpr int WEIGHT_SLICES = std::is_same_v<T, float> ? 3 : 2;

// With no more rows than these, taking numbers apart costs more than tiles save.
template <class T>
constexpr int64_t SMALLEST_ON_TILES = std::is_same_v<T, float> ? 96 : 16;

// The tiles of this thread are all 16 rows of 64 bytes while this lives.
struct TileScope {
  TileScope() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } configuration;
    asm volatile("" ::"r"(&configuration) : "memory");
    _tile_loadconfig(&configuration);
  }
  ~TileScope() { _tile_release(); }
  TileScope(const TileScope&) = delete;
};

// Slices of 32 numbers, as pairs (number i, number i + 16): products do not mind the order as long as both operands
// have it.
template <int SLICES>
inline void split(Vector<float> low, Vector<float> high, Pairs (&slices)[SLICES]) {
  for (int s = 0; s < SLICES; ++s) {
    // Rounded to nearest: NaN may be lost here, but not in the norms, nor infinity.
    const Pairs a = ((Pairs)low + 0x8000u) & 0xffff0000u, b = ((Pairs)high + 0x8000u) & 0xffff0000u;
    slices[s] = a >> 16 | b;
    low -= (Vector<float>)a;
    high -= (Vector<float>)b;
  }
}

// One slice of 32 rows of 32 numbers is a left operand as it is. The right operand of x yᵀ has the pairs of a row below
// each other: [pair][row], two tiles of 16 rows.
inline void store_transposed(const Pairs* rows, Word* to) {
  for (int half = 0; half < 2; ++half) {
    Vector<float> x[16];
    std::memcpy(x, rows + 16 * half, sizeof x);
    transpose<float>(x);
    std::memcpy(to + half * BLOCK_WORDS / 2, x, sizeof x);
  }
}

// The right operand of w x pairs the numbers of two rows, r and r + 16: [pair of rows][column], two tiles of 16
// columns.
inline void store_paired(const Pairs* rows, Word* to) {
  for (int r = 0; r < 16; ++r) {
    const Pairs a = rows[r], b = rows[r + 16], low = (a & 0xffffu) | b << 16, high = a >> 16 | (b & 0xffff0000u);
    std::memcpy(to + r * 32, &low, sizeof low);
    std::memcpy(to + BLOCK_WORDS / 2 + r * 32, &high, sizeof high);
  }
}

// Slice A of x times slice B of y, 32 × 32 × 32, onto the sums in tiles 0 … 3; x stays in tiles 4 and 5, y in 6 and 7.
template <int A, int B, bool LOAD_X, bool LOAD_Y>
inline void multiply_slices(const Word* x, const Word* y) {
  if constexpr (LOAD_X) _tile_loadd(4, x + A * BLOCK_WORDS, 64);
  if constexpr (LOAD_Y) _tile_loadd(6, y + B * BLOCK_WORDS, 64);
  _tile_dpbf16ps(0, 4, 6);
  if constexpr (LOAD_Y) _tile_loadd(7, y + B * BLOCK_WORDS + BLOCK_WORDS / 2, 64);
  _tile_dpbf16ps(1, 4, 7);
  if constexpr (LOAD_X) _tile_loadd(5, x + A * BLOCK_WORDS + BLOCK_WORDS / 2, 64);
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
}

// out (32 × 32) = or += Σ_k x_k y_k over `steps` blocks k of NX and NY slices each.
template <int NX, int NY>
inline void multiply_blocks(const Word* x, const Word* y, int64_t steps, float* out, bool add) {
  constexpr int64_t X = NX * BLOCK_WORDS, Y = NY * BLOCK_WORDS, ROW = PANEL * 4;
  float* const below = out + 16 * PANEL;
  // The tile instructions do not say that they read memory.
  asm volatile("" ::: "memory");
  if (add) {
    _tile_loadd(0, out, ROW);
    _tile_loadd(1, out + 16, ROW);
    _tile_loadd(2, below, ROW);
    _tile_loadd(3, below + 16, ROW);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  // Products that follow each other share an operand.
  for (int64_t k = 0; k < steps; ++k, x += X, y += Y) {
    if constexpr (NX == 3 && NY == 3) {
      multiply_slices<0, 2, true, true>(x, y);
      multiply_slices<0, 1, false, true>(x, y);
      multiply_slices<1, 1, true, false>(x, y);
      multiply_slices<1, 0, false, true>(x, y);
      multiply_slices<2, 0, true, false>(x, y);
      multiply_slices<0, 0, true, false>(x, y);
    } else {
      if constexpr (NY == 2) multiply_slices<0, 1, true, true>(x, y);
      if constexpr (NX == 2) multiply_slices<1, 0, true, true>(x, y);
      multiply_slices<0, 0, true, NX == 1>(x, y);
    }
  }
  _tile_stored(0, out, ROW);
  _tile_stored(1, out + 16, ROW);
  _tile_stored(2, below, ROW);
  _tile_stored(3, below + 16, ROW);
  asm volatile("" ::: "memory");
}

}  // namespace itrd::ITRD_ISA
