// The backward pass of both terms, one sweep over the rows: the correlation's gradient is formed from the saved
// moments, the Gram term's was formed in the forward pass and is scaled by its upstream gradient.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/simd.h"

namespace itrd::ITRD_ISA {

// ∂L/∂z_ij = own_j ẑ_ij + other_j ŵ_ij, ẑ = ((z − μ_z) − rounding of μ_z)/σ_z, of z and the other input w.
template <class C>
struct Coefficients {
  const C *mean, *mean_low, *rstd, *other_mean, *other_mean_low, *other_rstd;
  std::vector<C> own, other;

  // ∂v_j/∂s_ij = (1/σ_s,j) (t̂_ij/n − v_j ŝ_ij/(n−1)); for the teacher swap s and t
  Coefficients(const C* moments, bool of_s, int64_t n, int64_t d, double upstream) : own(d), other(d) {
    const C *s = moments, *t = moments + (MEAN_T - MEAN_S) * d;
    if (!of_s) std::swap(s, t);
    mean = s, mean_low = s + d, rstd = s + 2 * d;
    other_mean = t, other_mean_low = t + d, other_rstd = t + 2 * d;
    const C *v = moments + V * d, *dv = moments + DV * d;
    const C share = C(upstream / n), minus_share = C(-upstream / (n - 1));
    for (int64_t j = 0; j < d; ++j) {
      other[j] = share * dv[j] * rstd[j];
      own[j] = minus_share * dv[j] * rstd[j] * v[j];
    }
  }
};

template <class T, class C, bool WHOLE>
inline void write_gradient(const T* z, const T* w, const Coefficients<C>* k, const C* dgram, C g_gram, T* out,
                           int64_t j, int64_t count) {
  using V = Vector<C>;
  auto read = [&](const auto* from) {
    using From = std::remove_cv_t<std::remove_pointer_t<decltype(from)>>;
    return WHOLE ? load<From, C>(from + j) : load_some<From, C>(from + j, count);
  };
  V gradient{};
  if (k) {
    const V own = ((read(z) - read(k->mean)) - read(k->mean_low)) * read(k->rstd);
    const V other = ((read(w) - read(k->other_mean)) - read(k->other_mean_low)) * read(k->other_rstd);
    gradient = read(k->own.data()) * own + read(k->other.data()) * other;
  }
  if (dgram) gradient += g_gram * read(dgram);
  WHOLE ? store<T, C>(out + j, gradient) : store_some<T, C>(out + j, gradient, count);
}

template <class T>
void write_rows(const Matrix& z, const Matrix& w, const Coefficients<Wide<T>>* k, const Matrix& dgram, double g_gram,
                const Matrix& out, int64_t begin, int64_t end) {
  using C = Wide<T>;
  constexpr int64_t L = LANES<C>;
  for (int64_t i = begin; i < end; ++i) {
    const T *row_z = k ? z.row<T>(i) : nullptr, *row_w = k ? w.row<T>(i) : nullptr;
    const C* row_dgram = dgram ? dgram.row<C>(i) : nullptr;
    int64_t j = 0;
    for (; j + L <= out.columns; j += L)
      write_gradient<T, C, true>(row_z, row_w, k, row_dgram, C(g_gram), out.row<T>(i), j, L);
    if (j < out.columns)
      write_gradient<T, C, false>(row_z, row_w, k, row_dgram, C(g_gram), out.row<T>(i), j, out.columns - j);
  }
}

template <class T>
void backward(const BackwardProblem& p) {
  using C = Wide<T>;
  const C* moments = static_cast<const C*>(p.moments);
  const int64_t n = p.t.rows, d = p.t.columns;
  std::vector<Coefficients<C>> of_e, of_t;
  if (moments && p.grad_e) of_e.emplace_back(moments, true, n, d, p.g_correlation);
  if (moments && p.grad_t) of_t.emplace_back(moments, false, n, d, p.g_correlation);
  const int threads = n * (p.grad_e.columns + p.grad_t.columns + p.grad_s.columns) < 65536 ? 1 : max_threads();
  // A few rows at a time, so that the second gradient finds its inputs in the cache.
  constexpr int64_t ROWS = 4;
  parallel(threads, [&](int thread) {
    const Range range(n, thread, threads);
    for (int64_t i = range.begin; i < range.end; i += ROWS) {
      const int64_t end = std::min(i + ROWS, range.end);
      if (p.grad_e) write_rows<T>(p.e, p.t, of_e.empty() ? nullptr : &of_e[0], p.dgram_e, p.g_gram, p.grad_e, i, end);
      if (p.grad_t) write_rows<T>(p.t, p.e, of_t.empty() ? nullptr : &of_t[0], p.dgram_t, p.g_gram, p.grad_t, i, end);
      if (p.grad_s) write_rows<T>(p.e, p.t, nullptr, p.dgram_s, p.g_gram, p.grad_s, i, end);
    }
  });
}

}  // namespace itrd::ITRD_ISA
