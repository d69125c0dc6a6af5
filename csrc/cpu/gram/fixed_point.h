// Numbers taken apart into bytes: integers q of S digits to the base 256, each from −128 to 127,
//   q = 256^(S−1) q₀ + … + q_(S−1).
#pragma once

#include <immintrin.h>

#include <algorithm>

#include "cpu/simd/vector.h"

namespace itrd::ITRD_ISA {

typedef int32_t Ints __attribute__((vector_size(64)));
typedef int8_t Bytes __attribute__((vector_size(64)));

template <class T>
constexpr int DIGITS = std::is_same_v<T, float> ? 3 : 2;
// The largest integer that is used: its further digits are 0, so that the products left out have either sign.
template <int S>
constexpr float LARGEST = S == 3 ? 0x7f0000 : 0x7f00;
// What the first digit counts.
template <int S>
constexpr float FIRST = S == 3 ? 0x1p16f : 0x1p8f;

// |x| as an integer, NaN above infinity above all numbers.
inline Ints magnitude(Vector<float> x) { return (Ints)x & 0x7fffffff; }
inline Ints larger(Ints a, Ints b) { return a > b ? a : b; }
inline float largest_lane(Ints magnitudes) { return bit_cast<float>(_mm512_reduce_max_epi32((__m512i)magnitudes)); }

// Integers nearest to x, and 128 in every digit but the first, so that each is a byte from 0 to 255.
template <int S>
inline Ints biased(Vector<float> x) {
  return (Ints)_mm512_cvtps_epi32((__m512)x) + (S == 3 ? 0x8080 : 0x80);
}
// Digits without the 128.
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
  for (int v = 0; v < 4; ++v) q[v] = sort_digits<S>(biased<S>(x[v]), bytes);
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
  for (int v = 0; v < 4; ++v) q[v] = (Words)biased<S>(x[v]);
  const Words a = (q[0] & LOW) | q[2] << 16, b = (q[1] & LOW) | q[3] << 16;
  digits[S - 1] = as_signed((Ints)((a & EVEN) | (b & EVEN) << 8));
  digits[S - 2] = (Ints)((a >> 8 & EVEN) | (b & ~EVEN));
  if constexpr (S == 3) {
    const Words c = q[0] >> 16 | (q[2] & ~LOW), d = q[1] >> 16 | (q[3] & ~LOW);
    digits[1] = as_signed(digits[1]);
    digits[0] = (Ints)((c & EVEN) | (d & EVEN) << 8);
  }
}

// Into the tiles of the digits, `apart` bytes from each other.
template <int S>
inline void store_digits(const Ints (&digits)[S], int8_t* to, int64_t apart) {
  for (int s = 0; s < S; ++s) std::memcpy(to + s * apart, &digits[s], sizeof digits[s]);
}

}  // namespace itrd::ITRD_ISA
