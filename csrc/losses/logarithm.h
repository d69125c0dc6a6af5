// log(1 + δ), and what (1 + δ) log(1 + δ) exceeds δ by, to full precision however small δ is.
#pragma once

#include "pair.h"

namespace ITRD_LOSS_NAMESPACE {

// Each side has log_of(V) of its own, and knows what V is of: cpu/simd/logarithm.h, cuda/numeric.cuh.
template <class V>
struct LogOnePlus {
  V value;   // λ = log(1 + δ)
  V excess;  // (1 + δ)λ − δ, about δ²/2

  ITRD_LOSS explicit LogOnePlus(V delta) {
    // λ = 2t (1 + rest), rest = t²/3 + t⁴/5 + …, t = δ/(2 + δ), for |t| < 1/7
    constexpr int kTerms = kIsDouble<V> ? 9 : 4;
    const V t = delta / (2 + delta), square = t * t;
    V rest{};
    ITRD_LOSS_UNROLL
    for (int k = kTerms; k > 0; --k) rest = (rest + (V{} + 1) / (2 * k + 1)) * square;
    const auto near = (4 * delta > -1) & (3 * delta < 1);
    const V far = log_of(1 + delta);
    value = near ? 2 * t * (1 + rest) : far;
    // δ = 2t/(1 − t) and 1 + δ = (1 + t)/(1 − t), so that the excess is δ (t + (1 + t) rest)
    excess = near ? delta * (t + (1 + t) * rest) : (1 + delta) * far - delta;
  }
};

}  // namespace ITRD_LOSS_NAMESPACE
