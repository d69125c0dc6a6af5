// Products of 16 × 32 numbers on the tiles of AMX, limb by limb (fixed_point.h): bytes, whose products sum exactly in
// int32.
//
// The product of limbs a and b weighs 256^-(a+b); weights below that of the last limb are left out, so that six of the
// nine products of three limbs remain. docs/design/fixed-point.md says what that costs, and when it would cost too
// much.
#pragma once

#include <immintrin.h>

#include <array>

#include "cpu/gram/amx_instructions.h"
#include "cpu/gram/fixed_point.h"
#include "cpu/gram/schedule.h"

namespace itrd::ITRD_ISA {

constexpr int64_t kStepNumbers = 64;  // numbers of a row that one product sums
constexpr int64_t kChunkSteps = 4;    // steps whose right operand, for 32 columns, takes half of the L1 cache
constexpr int64_t kChunkNumbers = kChunkSteps * kStepNumbers;

// What becomes of the sums of 16 rows of 32 numbers, for the weights 256^-w:
//   to_r = or += scale_r Σ_w 256^-w sums[w]_r
// It is done a vector at a time, since the vector units have time for it between the products of other tiles.
template <int limb_count>
struct Conversion {
  static constexpr int64_t kVectors = 2 * 16;
  const int32_t* sums = nullptr;
  const float* scale;
  float* to;
  __mmask16 add;  // all or none

  void convert(int64_t vector) const {
    const int64_t i = vector * 16;
    auto read = [&](int64_t weight) {
      return (Vector<float>)_mm512_cvtepi32_ps(_mm512_load_si512(sums + weight * 16 * kPanel + i));
    };
    Vector<float> x = read(0) + 0x1p-8f * read(1);
    if constexpr (limb_count == 3) x += 0x1p-16f * read(2);
    store<float, float>(to + i, (Vector<float>)_mm512_maskz_loadu_ps(add, to + i) + x * scale[vector / 2]);
  }
};

// Which limbs of x and y, and which half of y, are multiplied. An operand that the product before had is not loaded
// again. Of three limbs, products onto the same sums are four apart, which is how long one takes.
struct Product {
  int x, y, half;
};
template <int limb_count>
constexpr std::array<Product, limb_count == 3 ? 12 : 6> kProducts;
template <>
constexpr std::array<Product, 12> kProducts<3>{{{0, 0, 0},
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
constexpr std::array<Product, 6> kProducts<2>{{{0, 0, 0}, {0, 0, 1}, {0, 1, 1}, {0, 1, 0}, {1, 0, 0}, {1, 0, 1}}};
// The tile of the sums that product i adds to.
template <int limb_count>
constexpr int sums_of(std::size_t i) {
  return 2 * (kProducts<limb_count>[i].x + kProducts<limb_count>[i].y) + kProducts<limb_count>[i].half;
}
// Whether product i is the first, or the last, of a step onto its sums.
template <int limb_count>
constexpr bool opens(std::size_t i) {
  for (std::size_t k = 0; k < i; ++k)
    if (sums_of<limb_count>(k) == sums_of<limb_count>(i)) return false;
  return true;
}
template <int limb_count>
constexpr bool closes(std::size_t i) {
  for (std::size_t k = i + 1; k < kProducts<limb_count>.size(); ++k)
    if (sums_of<limb_count>(k) == sums_of<limb_count>(i)) return false;
  return true;
}

// Product I, onto the sums of weight x + y in tile 2(x + y) + half, which are stored as soon as they are complete. At
// the first step they start from zero.
template <int limb_count, bool first, bool last, std::size_t I>
inline void multiply_limb(const int8_t* x, const int8_t* y, int32_t* sums) {
  constexpr Product p = kProducts<limb_count>[I];
  constexpr int tile = sums_of<limb_count>(I);
  constexpr Product before = kProducts<limb_count>[I > 0 ? I - 1 : 0];
  if constexpr (I == 0 || p.x != before.x) tile_load<6>(x + p.x * kAmxTileBytes);
  if constexpr (I == 0 || p.y != before.y || p.half != before.half)
    tile_load<7>(y + (2 * p.y + p.half) * kAmxTileBytes);
  if constexpr (first && opens<limb_count>(I)) tile_zero<tile>();
  tile_multiply<tile>();
  if constexpr (last && closes<limb_count>(I)) tile_store<tile>(sums + tile / 2 * 16 * kPanel + tile % 2 * 16, kPanel);
}

// One step of kStepNumbers, and as much of the conversion before as goes unnoticed beside it.
template <int limb_count, bool first, bool last, std::size_t... I>
inline void multiply_step(const int8_t* x, const int8_t* y, int32_t* sums, const Conversion<limb_count>& before,
                          int64_t vector, std::index_sequence<I...>) {
  auto convert = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) before.convert(vector + i);
  };
  constexpr int count = sizeof...(I), vectors = Conversion<limb_count>::kVectors / kChunkSteps;
  ((multiply_limb<limb_count, first, last, I>(x, y, sums), convert(I * vectors / count, (I + 1) * vectors / count)),
   ...);
}

// sums[weight] (16 × 32) = Σ_k x_k y_k over `steps`, of x [step][limb][row][64] and
// y [step][limb][half][quad][column][4].
template <int limb_count>
inline void multiply_tiles(const int8_t* x, const int8_t* y, int64_t steps, int32_t* sums,
                           const Conversion<limb_count>& before) {
  constexpr auto all = std::make_index_sequence<kProducts<limb_count>.size()>();
  constexpr int64_t x_step = limb_count * kAmxTileBytes, y_step = 2 * x_step,
                    vectors = Conversion<limb_count>::kVectors / kChunkSteps;
  // The instructions of AMX do not say that they read memory.
  asm volatile("" ::: "memory");
  const int64_t end = steps - 1;
  if (end == 0) {
    multiply_step<limb_count, true, true>(x, y, sums, before, 0, all);
  } else {
    multiply_step<limb_count, true, false>(x, y, sums, before, 0, all);
    for (int64_t k = 1; k < end; ++k)
      multiply_step<limb_count, false, false>(x + k * x_step, y + k * y_step, sums, before, k * vectors, all);
    multiply_step<limb_count, false, true>(x + end * x_step, y + end * y_step, sums, before, end * vectors, all);
  }
  for (int64_t i = steps * vectors; i < Conversion<limb_count>::kVectors; ++i) before.convert(i);
}

// The products of panels of one thread. What a product has summed is converted while the next one is formed.
template <int limb_count>
class Multiplier {
  const AmxScope scope_;
  alignas(64) int32_t sums_[2][limb_count * 16 * kPanel] = {};
  alignas(64) float nowhere_[16 * kPanel] = {};
  Conversion<limb_count> before_ = idle();

  Conversion<limb_count> idle() { return {sums_[1], nowhere_, nowhere_, 0}; }

 public:
  // to (32 × 32) = or += scale_r (x yᵀ)_r, of x [half][step][limb][row][64]. All of it is there once `finish` has been
  // called.
  void multiply(const int8_t* x, const int8_t* y, int64_t steps, const float* scale, float* to, bool add) {
    for (int half = 0; half < 2; ++half, x += steps * limb_count * kAmxTileBytes, scale += 16, to += 16 * kPanel) {
      multiply_tiles<limb_count>(x, y, steps, sums_[half], before_);
      before_ = {sums_[half], scale, to, __mmask16(add ? 0xffff : 0)};
    }
  }
  void finish() {
    for (int64_t i = 0; i < before_.kVectors; ++i) before_.convert(i);
    before_ = idle();
  }
};

}  // namespace itrd::ITRD_ISA
