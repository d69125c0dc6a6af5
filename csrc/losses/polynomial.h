// The mutual-information loss of (cosine + c)^p (section 4.2 of the paper); parameters c ≥ 0 and p = 1, 2 or 3.
#pragma once

#include "mutual_information.h"

namespace ITRD_LOSS_NAMESPACE {

struct Polynomial {
  // κ(g) = (g + c)^p and its derivative.
  template <class V>
  struct Kernel {
    V value, slope;
    ITRD_LOSS Kernel(V g, V c, V p) {
      const V x = g + c, square = x * x;
      value = p < 2 ? x : p < 3 ? square : square * x;
      slope = p < 2 ? x - x + 1 : p < 3 ? 2 * x : 3 * square;
    }
  };

  // L_mi of G = κ(g) where neither row is zero, else 0.
  template <class V>
  ITRD_LOSS static PairTerms<V> of(const PairInput<V>& x) {
    const V alive_s = x.own_s * x.other_s, alive_t = x.own_t * x.other_t;
    const Kernel<V> s(x.g, x.parameters[0], x.parameters[1]), t(x.h, x.parameters[0], x.parameters[1]);
    PairInput<V> y = x;
    y.g = alive_s * s.value;
    y.h = alive_t * t.value;
    PairTerms<V> terms = MutualInformation::of(y);
    terms.w_s *= alive_s * s.slope;
    terms.w_t *= alive_t * t.slope;
    return terms;
  }

  // Those of L_mi for traces m_s κ(1) and m_st κ(1)².
  template <class A>
  ITRD_LOSS static PairCoefficients<A> coefficients(A m_s, A m_st, const A* parameters) {
    const A one = Kernel<A>(A(1), parameters[0], parameters[1]).value;
    return {inverse_square(m_s * one), inverse_square(m_st * one * one)};
  }
};

}  // namespace ITRD_LOSS_NAMESPACE
