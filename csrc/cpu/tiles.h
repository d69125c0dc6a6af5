// Products of 16 × 32 numbers on the AMX tiles, of numbers taken apart into bytes.
//
// The numbers of a row become integers q = x·f of S digits to the base 256, each from −128 to 127,
//   q = 256^(S−1) q₀ + … + q_(S−1),
// whose products sum exactly in int32. q_a q_b weighs 256^-(a+b); weights below the last digit's are left out, so that
// six of nine products remain of three digits. csrc/README.md says what that costs, and when it would cost too much.
#pragma once

#include <immintrin.h>

#include <array>
#include <bit>

#include "cpu/macro.h"
#include "cpu/simd.h"

namespace itrd::ITRD_ISA {

typedef int32_t Ints __attribute__((vector_size(64)));
typedef int8_t Bytes __attribute__((vector_size(64)));

constexpr int64_t TILE_BYTES = 1024;  // 16 rows of 64 bytes
constexpr int64_t STEP = 64;          // numbers of a row that one product sums
constexpr int64_t CHUNK_STEPS = 4;    // steps whose right operand, for 32 columns, takes half of the L1 cache
constexpr int64_t CHUNK = CHUNK_STEPS * STEP;

template <class T>
constexpr int DIGITS = std::is_same_v<T, float> ? 3 : 2;
// The largest integer that is used: its further digits are 0, so that the products left out have either sign.
template <int S>
constexpr float LARGEST = S == 3 ? 0x7f0000 : 0x7f00;
// What the first digit counts.
template <int S>
constexpr float FIRST = S == 3 ? 0x1p16f : 0x1p8f;

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

// |x| as an integer, NaN above infinity above all numbers.
inline Ints magnitude(Vector<float> x) { return (Ints)x & 0x7fffffff; }
inline Ints larger(Ints a, Ints b) { return a > b ? a : b; }
inline float largest_lane(Ints magnitudes) {
  return std::bit_cast<float>(_mm512_reduce_max_epi32((__m512i)magnitudes));
}

// Integers nearest to x, with what makes all digits but the first, −128 … 127, bytes from 0 to 255.
template <int S>
inline Ints round_up_digits(Vector<float> x) {
  return (Ints)_mm512_cvtps_epi32((__m512)x) + (S == 3 ? 0x8080 : 0x80);
}
inline Ints as_signed(Ints bytes) { return bytes ^ int32_t(0x80808080); }

// Within each 128 bits: bytes of digit 0 of the four numbers, of digit 1, of digit 2.
template <int S, std::size_t... I>
inline Ints sort_digits(Ints q, std::index_sequence<I...>) {
  const Bytes x = (Bytes)q;
  return (Ints)__builtin_shufflevector(x, x, (I & 48 | (I & 3) << 2 | (S - 1 - std::min<int>(I >> 2 & 3, S - 1)))...);
}
template <int HIGH, std::size_t... I>
inline Ints unpack(Ints a, Ints b, std::index_sequence<I...>) {
  return __builtin_shufflevector(a, b, ((I & 12) + 2 * HIGH + (I >> 1 & 1) + 16 * (I & 1))...);
}
template <int HIGH, std::size_t... I>
inline Ints unpack_pairs(Ints a, Ints b, std::index_sequence<I...>) {
  return __builtin_shufflevector(a, b, ((I & 12) + 2 * HIGH + (I & 1) + 16 * (I >> 1 & 1))...);
}

// The digits of 64 numbers of a row, in a vector each. Four numbers that follow each other stay together; quad
// 4l + v holds numbers 16v + 4l and on.
template <int S>
inline void row_digits(const Vector<float> (&x)[4], Ints (&digits)[S]) {
  constexpr auto bytes = std::make_index_sequence<64>();
  constexpr auto ints = std::make_index_sequence<16>();
  Ints q[4];
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) q[v] = sort_digits<S>(round_up_digits<S>(x[v]), bytes);
  const Ints low = unpack<0>(q[0], q[1], ints), high = unpack<0>(q[2], q[3], ints);
  digits[0] = unpack_pairs<0>(low, high, ints);
  digits[1] = as_signed(unpack_pairs<1>(low, high, ints));
  if constexpr (S == 3)
    digits[2] = as_signed(unpack_pairs<0>(unpack<1>(q[0], q[1], ints), unpack<1>(q[2], q[3], ints), ints));
}

// The digits of four rows of 16 numbers, the four of a column together.
template <int S>
inline void column_digits(const Vector<float> (&x)[4], Ints (&digits)[S]) {
  constexpr int32_t EVEN = 0x00ff00ff, LOW = 0x0000ffff;
  typedef uint32_t Words __attribute__((vector_size(64)));
  Words q[4];
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) q[v] = (Words)round_up_digits<S>(x[v]);
  const Words a = (q[0] & LOW) | q[2] << 16, b = (q[1] & LOW) | q[3] << 16;
  digits[S - 1] = as_signed((Ints)((a & EVEN) | (b & EVEN) << 8));
  digits[S - 2] = (Ints)((a >> 8 & EVEN) | (b & ~EVEN));
  if constexpr (S == 3) {
    const Words c = q[0] >> 16 | (q[2] & ~LOW), d = q[1] >> 16 | (q[3] & ~LOW);
    digits[1] = as_signed(digits[1]);
    digits[0] = (Ints)((c & EVEN) | (d & EVEN) << 8);
  }
}

// The intrinsics want literal numbers.
template <int TILE>
inline void tile_zero() {
  asm volatile("tilezero %%tmm%c0" ::"i"(TILE));
}
template <int TILE>
inline void tile_multiply() {
  asm volatile("tdpbssd %%tmm7, %%tmm6, %%tmm%c0" ::"i"(TILE));
}
template <int TILE>
inline void tile_store(int32_t* to) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(PANEL * sizeof(int32_t)), "i"(TILE) : "memory");
}

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

// Which digits of x and of which half of y are multiplied, and which of them are loaded. Of three digits, four products
// lie between two onto the same sums: a product takes that long.
struct Product {
  int x, y, half;
  bool load_x, load_y;
};
template <int S>
constexpr std::array<Product, S == 3 ? 12 : 6> PRODUCTS;
template <>
constexpr std::array<Product, 12> PRODUCTS<3>{{
    {0, 0, 0, true, true},
    {0, 0, 1, false, true},
    {0, 2, 1, false, true},
    {0, 2, 0, false, true},
    {0, 1, 0, false, true},
    {0, 1, 1, false, true},
    {1, 1, 1, true, false},
    {1, 1, 0, false, true},
    {1, 0, 0, false, true},
    {1, 0, 1, false, true},
    {2, 0, 1, true, false},
    {2, 0, 0, false, true},
}};
template <>
constexpr std::array<Product, 6> PRODUCTS<2>{{
    {0, 0, 0, true, true},
    {0, 0, 1, false, true},
    {0, 1, 1, false, true},
    {0, 1, 0, false, true},
    {1, 0, 0, true, true},
    {1, 0, 1, false, true},
}};
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
  if constexpr (p.load_x) _tile_loadd(6, x + p.x * TILE_BYTES, 64);
  if constexpr (p.load_y) _tile_loadd(7, y + (2 * p.y + p.half) * TILE_BYTES, 64);
  if constexpr (FIRST && opens<S>(I)) tile_zero<TILE>();
  tile_multiply<TILE>();
  if constexpr (LAST && closes<S>(I)) tile_store<TILE>(sums + TILE / 2 * 16 * PANEL + TILE % 2 * 16);
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
