// Probabilistic knowledge transfer; the formulas are derived in docs/design/mathematics.md. With k rows that count the
// coefficients are 1/k³ and kε, a row's statistic is r = 1/(1 + its mean cosine), and
//   kq = r_s (1 + g),  kp = r_t (1 + h),  δ = (p − q)/(q + ε),  λ = log(1 + δ)
//   L = 1/k³ Σ_ij [k(q + ε) ψ − kε λ],  ψ = (1 + δ)λ − δ
//   W_s,ij = (r_s,i u_ij + r_s,j u_ji)/(4k³),  u = ε/(q + ε) − δ;    row sums Σ_j u kq
//   W_t,ij = (r_t,i x_ij + r_t,j x_ji)/(4k³),  x = λ − ε/(p + ε);    row sums Σ_j x kp
#pragma once

#include "logarithm.h"
#include "pair.h"

namespace ITRD_LOSS_NAMESPACE {

struct Pkt {
  template <class V>
  ITRD_LOSS static PairTerms<V> of(const PairInput<V>& x) {
    const V eps = x.c.second;
    // A cosine may be below −1 by a rounding.
    const V above_s = not_negative(1 + x.g), above_t = not_negative(1 + x.h);
    const V q = x.own_s * above_s, p = x.own_t * above_t, q_eps = q + eps, p_eps = p + eps;
    // p − q = r_t (h − g) + (r_t − r_s)(1 + g), in which nearly equal cosines keep the digits that 1 + g rounds away
    const V apart = x.g < -1 ? above_t : x.h < -1 ? -above_s : x.h - x.g;
    const V delta = (x.own_t * apart + (x.own_t - x.own_s) * above_s) / q_eps;
    const LogOnePlus<V> log(delta, p_eps / q_eps);
    const V u = eps / q_eps - delta, v = log.value - eps / p_eps;
    // A pair with a row that does not count has no part in anything.
    const V counts = x.own_s * x.other_s == 0 ? V{} : V{} + 1, c = counts * x.c.first, quarter = c / 4;
    return {c * (q_eps * log.excess - eps * log.value),
            V{},
            quarter * x.own_s * u,
            quarter * x.own_t * v,
            counts * u * q,
            counts * v * p};
  }

  // r of a row whose cosines with all k rows add up to `along`.
  template <class A>
  ITRD_LOSS static A statistic(A along, A k) {
    return 1 / (1 + along / k);
  }
  // κ of a row: the row sums' part of the gradient is −κ_i a − Σ_j κ_j ẑ_j, a = Σ_j ẑ_j.
  template <class A>
  ITRD_LOSS static A kappa(A statistic, A row_sum, A k) {
    return statistic * row_sum / (k * k * k * k);
  }

  template <class A>
  ITRD_LOSS static PairCoefficients<A> coefficients(A, A, const A* parameters) {
    return {parameters[0], parameters[1]};
  }
};

}  // namespace ITRD_LOSS_NAMESPACE
