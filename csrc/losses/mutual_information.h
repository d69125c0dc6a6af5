// The mutual-information loss (Eqs. 7–9): Σ_ij (c_s G_s² − c_st G_s² G_t²).
#pragma once

#include "pair.h"

namespace ITRD_LOSS_NAMESPACE {

struct MutualInformation {
  // W = G_s (c_s − c_st G_t²)
  template <class V>
  ITRD_LOSS static V weight_s(V g, V h, V c_s, V c_st) {
    return g * (c_s - c_st * (h * h));
  }
  // W' = −c_st G_s² G_t
  template <class V>
  ITRD_LOSS static V weight_t(V g, V h, V c_st) {
    return -c_st * (g * g) * h;
  }

  // The sums are Σ G_s² (c_s − c_st G_t²), well conditioned near 0, and Σ G_s² G_t². G is 0 where a row is zero.
  template <class V>
  ITRD_LOSS static PairTerms<V> of(const PairInput<V>& x) {
    const V w_s = weight_s(x.g, x.h, x.c.first, x.c.second);
    return {x.g * w_s, (x.g * x.h) * (x.g * x.h), w_s, weight_t(x.g, x.h, x.c.second), V{}, V{}};
  }

  // c_s = 1/m_s², c_st = 1/m_st²
  template <class A>
  ITRD_LOSS static PairCoefficients<A> coefficients(A m_s, A m_st, const A*) {
    return {inverse_square(m_s), inverse_square(m_st)};
  }
};

}  // namespace ITRD_LOSS_NAMESPACE
