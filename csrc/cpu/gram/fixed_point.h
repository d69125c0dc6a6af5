// Numbers in fixed point: integers q, taken apart into limbs to the base 256, each a byte from −128 to 127. Of two or
// three limbs, limb_count = 2 or 3,
//   q = 256^(limb_count − 1) q₀ + … + q_(limb_count − 1).
#pragma once

#include <immintrin.h>

#include <algorithm>

#include "cpu/simd/vector.h"

namespace itrd::ITRD_ISA {

typedef int32_t Ints __attribute__((vector_size(64)));
typedef int8_t Bytes __attribute__((vector_size(64)));

// How many limbs a number of type T takes.
template <class T>
constexpr int kLimbs = std::is_same_v<T, float> ? 3 : 2;
// The largest integer that is used. Its further limbs are 0, so that the products that are left out have either sign.
template <int limb_count>
constexpr float kLargest = limb_count == 3 ? 0x7f0000 : 0x7f00;
// What one in the first limb is worth.
template <int limb_count>
constexpr float kFirstLimbValue = limb_count == 3 ? 0x1p16f : 0x1p8f;

// The bits of |x|, which are ordered as the numbers are, infinity and then NaN above all of them.
inline Ints magnitude(Vector<float> x) { return (Ints)x & 0x7fffffff; }
inline Ints larger(Ints a, Ints b) { return a > b ? a : b; }
inline float largest_lane(Ints magnitudes) { return bit_cast<float>(_mm512_reduce_max_epi32((__m512i)magnitudes)); }

// The integers nearest to x, with 128 added to every limb but the first, so that each of those is a byte from 0 to 255.
template <int limb_count>
inline Ints biased(Vector<float> x) {
  return (Ints)_mm512_cvtps_epi32((__m512)x) + (limb_count == 3 ? 0x8080 : 0x80);
}
// Limbs without the 128.
inline Ints as_signed(Ints bytes) { return bytes ^ int32_t(0x80808080); }

// Within each 128 bits: limbs 0 of the four numbers, then limbs 1, then limbs 2.
template <int limb_count, std::size_t... I>
inline Ints sort_limbs(Ints q, std::index_sequence<I...>) {
  const Bytes x = (Bytes)q;
  return (Ints)__builtin_shufflevector(
      x, x, ((I & 48) | (I & 3) << 2 | (limb_count - 1 - std::min<int>(I >> 2 & 3, limb_count - 1)))...);
}
// Within each 128 bits, the lower or the higher two numbers of a and b: a₀ b₀ a₁ b₁, or as pairs a₀ a₁ b₀ b₁.
template <int high, std::size_t... I>
inline Ints unpack(Ints a, Ints b, std::index_sequence<I...>) {
  return __builtin_shufflevector(a, b, ((I & 12) + 2 * high + (I >> 1 & 1) + 16 * (I & 1))...);
}
template <int high, std::size_t... I>
inline Ints unpack_pairs(Ints a, Ints b, std::index_sequence<I...>) {
  return __builtin_shufflevector(a, b, ((I & 12) + 2 * high + (I & 1) + 16 * (I >> 1 & 1))...);
}

// The limbs of 64 numbers of a row, each limb in a vector. Four numbers that follow each other stay together: quad 4l +
// v holds numbers 16v + 4l and on.
template <int limb_count>
inline void row_limbs(const Vector<float> (&x)[4], Ints (&limbs)[limb_count]) {
  constexpr auto bytes = std::make_index_sequence<64>();
  constexpr auto ints = std::make_index_sequence<16>();
  Ints q[4];
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) q[v] = sort_limbs<limb_count>(biased<limb_count>(x[v]), bytes);
  const Ints low = unpack<0>(q[0], q[1], ints), high = unpack<0>(q[2], q[3], ints);
  limbs[0] = unpack_pairs<0>(low, high, ints);
  limbs[1] = as_signed(unpack_pairs<1>(low, high, ints));
  if constexpr (limb_count == 3)
    limbs[2] = as_signed(unpack_pairs<0>(unpack<1>(q[0], q[1], ints), unpack<1>(q[2], q[3], ints), ints));
}

// The limbs of four rows of 16 numbers, the four of a column together.
template <int limb_count>
inline void column_limbs(const Vector<float> (&x)[4], Ints (&limbs)[limb_count]) {
  constexpr int32_t even = 0x00ff00ff, low = 0x0000ffff;
  typedef uint32_t Words __attribute__((vector_size(64)));
  Words q[4];
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) q[v] = (Words)biased<limb_count>(x[v]);
  const Words a = (q[0] & low) | q[2] << 16, b = (q[1] & low) | q[3] << 16;
  limbs[limb_count - 1] = as_signed((Ints)((a & even) | (b & even) << 8));
  limbs[limb_count - 2] = (Ints)((a >> 8 & even) | (b & ~even));
  if constexpr (limb_count == 3) {
    const Words c = q[0] >> 16 | (q[2] & ~low), d = q[1] >> 16 | (q[3] & ~low);
    limbs[1] = as_signed(limbs[1]);
    limbs[0] = (Ints)((c & even) | (d & even) << 8);
  }
}

// The vectors of the limbs, into tiles that are `apart` bytes from each other.
template <int limb_count>
inline void store_limbs(const Ints (&limbs)[limb_count], int8_t* to, int64_t apart) {
  for (int i = 0; i < limb_count; ++i) std::memcpy(to + i * apart, &limbs[i], sizeof limbs[i]);
}

}  // namespace itrd::ITRD_ISA
