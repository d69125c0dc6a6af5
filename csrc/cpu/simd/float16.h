// float16 and bfloat16 as float32, of one number or a vector of them, whose bits stand in 32 bits each; and the type
// that sums are formed in.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cpu/interface.h"
#include "cpu/simd/vector.h"

namespace itrd::ITRD_ISA {

inline float as_float(uint32_t bits) { return bit_cast<float>(bits); }
inline Vector<float> as_float(Vector<uint32_t> bits) { return (Vector<float>)bits; }
inline uint32_t as_bits(float x) { return bit_cast<uint32_t>(x); }
inline Vector<uint32_t> as_bits(Vector<float> x) { return (Vector<uint32_t>)x; }
inline float number(uint32_t x) { return float(int32_t(x)); }
inline Vector<float> number(Vector<uint32_t> x) { return __builtin_convertvector((Vector<int32_t>)x, Vector<float>); }

// Subnormal halves are integers times 2^-24; the others get float's exponent bias, infinities and NaN its largest.
template <class Bits>
inline auto from_half(Bits half) {
  const Bits magnitude = half & 0x7fff, sign = (half & 0x8000) << 16;
  const Bits normal = (magnitude << 13) + ((127 - 15) << 23), special = normal + ((127 - 15) << 23);
  const Bits bits = magnitude >= 0x7c00 ? special : normal;
  return as_float((magnitude < 0x0400 ? as_bits(number(magnitude) * 0x1p-24f) : bits) | sign);
}

// The nearest half, ties to even.
template <class Float>
inline auto rounded_to_half(Float x) {
  using Bits = decltype(as_bits(x));
  const Bits bits = as_bits(x) & 0x7fffffff, sign = as_bits(x) >> 16 & 0x8000;
  const Bits normal = (bits - ((127 - 15) << 23) + 0xfff + (bits >> 13 & 1)) >> 13;
  // Below 2^-14: multiples of 2^-24, rounded by the addition.
  const Bits small = as_bits(as_float(bits) + 0.5f) - 0x3f000000;
  // From 65520 on, infinity.
  const Bits large = bits > 0x7f800000 ? (bits & 0) + 0x7e00 : (bits & 0) + 0x7c00;
  return sign | (bits < 0x38800000 ? small : bits >= 0x477ff000 ? large : normal);
}

// The nearest bfloat16, ties to even, in the upper half of the bits; the lower half is what it is.
template <class Float>
inline auto rounded_to_bfloat16(Float x) {
  const auto bits = as_bits(x);
  return x == x ? bits + 0x7fff + (bits >> 16 & 1) : bits | 0x400000;
}

// Sums and products of T are formed in Wide<T>.
template <class T>
using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class T>
inline Wide<T> to_float(T x) {
  if constexpr (std::is_same_v<T, BFloat16>)
    return as_float(uint32_t(x.bits) << 16);
  else if constexpr (std::is_same_v<T, Half>)
    return from_half(uint32_t(x.bits));
  else
    return x;
}

}  // namespace itrd::ITRD_ISA
