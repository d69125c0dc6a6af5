// log(1 + δ), and what (1 + δ) log(1 + δ) exceeds δ by, to full precision however small δ is.
#pragma once

#include "pair.h"

namespace ITRD_LOSS_NAMESPACE {

// Each side has log_of(V) of its own, and knows what V is of: cpu/simd/logarithm.h, cuda/numeric.cuh.
template <class V>
struct LogOnePlus {
  V value;   // λ = log(1 + δ)
  V excess;  // (1 + δ)λ − δ, about δ²/2

  // Of δ, and of 1 + δ as it is known where δ is not small.
  ITRD_LOSS LogOnePlus(V delta, V whole) {
    // λ = 2t (1 + rest), rest = t²/3 + t⁴/5 + …, t = δ/(2 + δ), for |t| < 1/7
    constexpr int kTerms = kIsDouble<V> ? 9 : 4;
    const V t = delta / (2 + delta), square = t * t;
    V rest{}, odd = V{} + (2 * kTerms + 1);
    ITRD_LOSS_UNROLL
    for (int k = kTerms; k > 0; --k, odd -= 2) rest = (rest + 1 / odd) * square;
    const auto near = (4 * delta > -1) & (3 * delta < 1);
    const V far = log_of(whole);
    value = near ? 2 * t * (1 + rest) : far;
    // δ = 2t/(1 − t) and 1 + δ = (1 + t)/(1 − t), so that the excess is δ (t + (1 + t) rest)
    excess = near ? delta * (t + (1 + t) * rest) : whole * far - delta;
  }
};

}  // namespace ITRD_LOSS_NAMESPACE
