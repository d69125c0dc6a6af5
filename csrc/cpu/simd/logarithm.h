// The natural logarithm of vectors, for the pair losses.
#pragma once

#include <type_traits>

#include "cpu/simd/vector.h"

namespace itrd::ITRD_ISA {

// Whether a vector, or a number, is of float64.
template <class V>
constexpr bool kIsDouble = std::is_same_v<V, double> || std::is_same_v<V, Vector<double>>;

// log of normal numbers; what is not above 0 stays as it is, so that NaN does.
template <class C, class Bits, int mantissa>
inline Vector<C> logarithm(Vector<C> x, Bits root_half) {
  using Whole = Vector<Bits>;
  // x = 2^k m with m from √½ to √2, log m = 2t (1 + t²/3 + t⁴/5 + …), t = (m − 1)/(m + 1)
  const Whole k = ((Whole)x - root_half) >> mantissa;
  const auto m = (Vector<C>)((Whole)x - (k << mantissa));
  const Vector<C> t = (m - 1) / (m + 1), square = t * t, one = broadcast(C(1));
  constexpr int terms = sizeof(C) == 8 ? 12 : 5;
  Vector<C> series{};
#pragma GCC unroll 12
  for (int i = terms; i > 0; --i) series = (series + one / C(2 * i + 1)) * square;
  const Vector<C> log = __builtin_convertvector(k, Vector<C>) * C(0.69314718055994530942) + 2 * t * (1 + series);
  return x > 0 ? log : x;
}
inline Vector<float> log_of(Vector<float> x) { return logarithm<float, int32_t, 23>(x, 0x3f3504f3); }
inline Vector<double> log_of(Vector<double> x) { return logarithm<double, int64_t, 52>(x, 0x3fe6a09e667f3bcd); }

}  // namespace itrd::ITRD_ISA
