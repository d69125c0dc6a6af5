// x^p of vectors, for Σ|e|^(2α).
#pragma once

#include <cmath>

#include "cpu/simd/vector.h"

namespace itrd::ITRD_ISA {

// log2 of normal numbers > 0.
inline Vector<double> log2_of(Vector<double> x) {
  using Bits = Vector<int64_t>;
  // x = 2^k m with m from √½ to √2
  const Bits above = (Bits)x - int64_t(0x3fe6a09e667f3bcd), k = above >> 52;
  const auto m = (Vector<double>)((Bits)x - (k << 52));
  // log2 m = 2/ln 2 (t + t³/3 + t⁵/5 + …), t = (m − 1)/(m + 1)
  const Vector<double> t = (m - 1) / (m + 1), u = t * t;
  Vector<double> series = broadcast(1.0 / 15);
#pragma GCC unroll 16
  for (int i = 13; i > 0; i -= 2) series = series * u + 1.0 / i;
  return __builtin_convertvector(k, Vector<double>) + 2 / M_LN2 * t * series;
}

// 2^x of x ≤ 0, and 0 below the normal numbers.
inline Vector<double> exp2_of(Vector<double> x) {
  using Bits = Vector<int64_t>;
  const Vector<double> within = x > -1022 ? x : broadcast(-1022.0);
  // To the nearest integer k, which then stands in the lowest bits.
  const Vector<double> shifted = within + 0x1.8p52, f = (within - (shifted - 0x1.8p52)) * M_LN2;
  Vector<double> series = broadcast(1.0);
#pragma GCC unroll 16
  for (int i = 10; i > 0; --i) series = 1 + f * series * (1.0 / i);
  const auto y = (Vector<double>)((Bits)series + ((Bits)shifted << 52));
  return x > -1022 ? y : Vector<double>{};
}

// x^p for x from 0 to 1 and p > 0.
inline Vector<double> power(Vector<double> x, double p) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = std::pow(x[i], p);
  return x;
}
inline Vector<float> power(Vector<float> x, double p) {
  HalfVector<float> parts[2];
  std::memcpy(parts, &x, sizeof x);
  for (HalfVector<float>& part : parts) {
    const Vector<double> wide = __builtin_convertvector(part, Vector<double>);
    const Vector<double> y = exp2_of(p * log2_of(wide));
    part = __builtin_convertvector(wide > 0 ? y : 0 * wide, HalfVector<float>);
  }
  std::memcpy(&x, parts, sizeof x);
  return x;
}

}  // namespace itrd::ITRD_ISA
