// Products of 16 × 32 numbers on the AMX tiles, of digits that are bytes (bytes.h) and sum exactly in int32.
//
// The product of digits a and b weighs 256^-(a+b); weights below the last digit's are left out, so that six of nine
// products remain of three digits. csrc/README.md says what that costs, and when it would cost too much.
#pragma once

#include <immintrin.h>

#include <array>

#include "cpu/gram/amx_instructions.h"
#include "cpu/gram/fixed_point.h"
#include "cpu/gram/schedule.h"

namespace itrd::ITRD_ISA {

constexpr int64_t STEP = 64;        // numbers of a row that one product sums
constexpr int64_t CHUNK_STEPS = 4;  // steps whose right operand, for 32 columns, takes half of the L1 cache
constexpr int64_t CHUNK = CHUNK_STEPS * STEP;

// to_r = or += scale_r Σ_w 256^-w sums[w]_r for 16 rows of 32, a vector at a time: the vector units have time for it
// between the products of other tiles.
template <int S>
struct Conversion {
  static constexpr int64_t VECTORS = 2 * 16;
  const int32_t* sums = nullptr;
  const float* scale;
  float* to;
  __mmask16 add;  // all or none

  void convert(int64_t vector) const {
    const int64_t i = vector * 16;
    auto read = [&](int64_t weight) {
      return (Vector<float>)_mm512_cvtepi32_ps(_mm512_load_si512(sums + weight * 16 * PANEL + i));
    };
    Vector<float> x = read(0) + 0x1p-8f * read(1);
    if constexpr (S == 3) x += 0x1p-16f * read(2);
    store<float, float>(to + i, (Vector<float>)_mm512_maskz_loadu_ps(add, to + i) + x * scale[vector / 2]);
  }
};

// Digits of x and y, and the half of y, that are multiplied. An operand that the product before had is not loaded
// again. Of three digits, products onto the same sums are four apart, which is how long one takes.
struct Product {
  int x, y, half;
};
template <int S>
constexpr std::array<Product, S == 3 ? 12 : 6> PRODUCTS;
template <>
constexpr std::array<Product, 12> PRODUCTS<3>{{{0, 0, 0},
                                               {0, 0, 1},
                                               {0, 2, 1},
                                               {0, 2, 0},
                                               {0, 1, 0},
                                               {0, 1, 1},
                                               {1, 1, 1},
                                               {1, 1, 0},
                                               {1, 0, 0},
                                               {1, 0, 1},
                                               {2, 0, 1},
                                               {2, 0, 0}}};
template <>
constexpr std::array<Product, 6> PRODUCTS<2>{{{0, 0, 0}, {0, 0, 1}, {0, 1, 1}, {0, 1, 0}, {1, 0, 0}, {1, 0, 1}}};
template <int S>
constexpr int sums_of(std::size_t i) {
  return 2 * (PRODUCTS<S>[i].x + PRODUCTS<S>[i].y) + PRODUCTS<S>[i].half;
}
// Whether product i is the first, or the last, of a step onto its sums.
template <int S>
constexpr bool opens(std::size_t i) {
  for (std::size_t k = 0; k < i; ++k)
    if (sums_of<S>(k) == sums_of<S>(i)) return false;
  return true;
}
template <int S>
constexpr bool closes(std::size_t i) {
  for (std::size_t k = i + 1; k < PRODUCTS<S>.size(); ++k)
    if (sums_of<S>(k) == sums_of<S>(i)) return false;
  return true;
}

// Onto the sums of weight x + y, in tiles 2(x + y) + half, which are stored as soon as they are complete.
template <int S, bool FIRST, bool LAST, std::size_t I>
inline void multiply_digit(const int8_t* x, const int8_t* y, int32_t* sums) {
  constexpr Product p = PRODUCTS<S>[I];
  constexpr int TILE = sums_of<S>(I);
  constexpr Product before = PRODUCTS<S>[I > 0 ? I - 1 : 0];
  if constexpr (I == 0 || p.x != before.x) tile_load<6>(x + p.x * TILE_BYTES);
  if constexpr (I == 0 || p.y != before.y || p.half != before.half) tile_load<7>(y + (2 * p.y + p.half) * TILE_BYTES);
  if constexpr (FIRST && opens<S>(I)) tile_zero<TILE>();
  tile_multiply<TILE>();
  if constexpr (LAST && closes<S>(I)) tile_store<TILE>(sums + TILE / 2 * 16 * PANEL + TILE % 2 * 16, PANEL);
}

// One step, and of the conversion what goes unnoticed beside it.
template <int S, bool FIRST, bool LAST, std::size_t... I>
inline void multiply_step(const int8_t* x, const int8_t* y, int32_t* sums, const Conversion<S>& before, int64_t vector,
                          std::index_sequence<I...>) {
  auto convert = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) before.convert(vector + i);
  };
  constexpr int COUNT = sizeof...(I), VECTORS = Conversion<S>::VECTORS / CHUNK_STEPS;
  ((multiply_digit<S, FIRST, LAST, I>(x, y, sums), convert(I * VECTORS / COUNT, (I + 1) * VECTORS / COUNT)), ...);
}

// sums[weight] (16 × 32) = Σ_k x_k y_k over `steps`: x [step][digit][row][64] and y
// [step][digit][half][quad][column][4].
template <int S>
inline void multiply_tiles(const int8_t* x, const int8_t* y, int64_t steps, int32_t* sums,
                           const Conversion<S>& before) {
  constexpr auto all = std::make_index_sequence<PRODUCTS<S>.size()>();
  constexpr int64_t X = S * TILE_BYTES, Y = 2 * X, VECTORS = Conversion<S>::VECTORS / CHUNK_STEPS;
  // The tile instructions do not say that they read memory.
  asm volatile("" ::: "memory");
  const int64_t last = steps - 1;
  if (last == 0) {
    multiply_step<S, true, true>(x, y, sums, before, 0, all);
  } else {
    multiply_step<S, true, false>(x, y, sums, before, 0, all);
    for (int64_t k = 1; k < last; ++k)
      multiply_step<S, false, false>(x + k * X, y + k * Y, sums, before, k * VECTORS, all);
    multiply_step<S, false, true>(x + last * X, y + last * Y, sums, before, last * VECTORS, all);
  }
  for (int64_t i = steps * VECTORS; i < Conversion<S>::VECTORS; ++i) before.convert(i);
}

// Products of panels of one thread. What a product has summed is converted while the next one is formed.
template <int S>
class Multiplier {
  const TileScope scope_;
  alignas(64) int32_t sums_[2][S * 16 * PANEL] = {};
  alignas(64) float nowhere_[16 * PANEL] = {};
  Conversion<S> before_ = idle();

  Conversion<S> idle() { return {sums_[1], nowhere_, nowhere_, 0}; }

 public:
  // to (32 × 32) = or += scale ∘ x yᵀ, x [half][step][digit][row][64]; there once finish has been called.
  void multiply(const int8_t* x, const int8_t* y, int64_t steps, const float* scale, float* to, bool add) {
    for (int half = 0; half < 2; ++half, x += steps * S * TILE_BYTES, scale += 16, to += 16 * PANEL) {
      multiply_tiles<S>(x, y, steps, sums_[half], before_);
      before_ = {sums_[half], scale, to, __mmask16(add ? 0xffff : 0)};
    }
  }
  void finish() {
    for (int64_t i = 0; i < before_.VECTORS; ++i) before_.convert(i);
    before_ = idle();
  }
};

}  // namespace itrd::ITRD_ISA
