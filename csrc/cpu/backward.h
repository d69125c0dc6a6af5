// The backward pass of both terms, one sweep over the rows: the correlation's gradient is formed from the saved
// moments, the Gram term's was formed in the forward pass and is scaled by its upstream gradient.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/simd.h"

namespace itrd::ITRD_ISA {

// ∂L/∂z_ij = own_j ẑ_ij + other_j ŵ_ij, ẑ = ((z − μ_z) − rounding of μ_z)/σ_z, of z and the other input w: vectors of
// these eight side by side, so that a row is swept with one pointer.
enum Coefficient { MEAN, MEAN_LOW, RSTD, OTHER_MEAN, OTHER_MEAN_LOW, OTHER_RSTD, OWN, OTHER, COEFFICIENTS };

// ∂v_j/∂s_ij = (1/σ_s,j) (t̂_ij/n − v_j ŝ_ij/(n−1)); for the teacher swap s and t
template <class C>
std::vector<C> coefficients(const C* moments, bool of_s, int64_t n, int64_t d, double upstream) {
  constexpr int64_t L = LANES<C>;
  std::vector<C> table((d + L - 1) / L * L * COEFFICIENTS);
  const C *s = moments, *t = moments + (MEAN_T - MEAN_S) * d;
  if (!of_s) std::swap(s, t);
  const C *const v = moments + V * d, *const dv = moments + DV * d;
  const C share = C(upstream / n), minus_share = C(-upstream / (n - 1));
  for (int64_t j = 0; j < d; ++j) {
    C* const to = &table[j / L * L * COEFFICIENTS + j % L];
    for (int64_t row = 0; row < 3; ++row) {
      to[(MEAN + row) * L] = s[row * d + j];
      to[(OTHER_MEAN + row) * L] = t[row * d + j];
    }
    const C rstd = s[2 * d + j];
    to[OTHER * L] = share * dv[j] * rstd;
    to[OWN * L] = minus_share * dv[j] * rstd * v[j];
  }
  return table;
}

// Columns j, j + 1, … of one row; the table and the Gram term's gradient may be missing.
template <class T, class C, bool WHOLE>
inline void write_gradient(const T* z, const T* w, const C* table, const C* dgram, C g_gram, T* out, int64_t j,
                           int64_t count) {
  constexpr int64_t L = LANES<C>;
  Vector<C> gradient{};
  if (table) {
    const C* const at = table + j * COEFFICIENTS;
    auto k = [&](int row) { return load<C, C>(at + row * L); };
    auto read = [&](const T* from) { return WHOLE ? load<T, C>(from + j) : load_some<T, C>(from + j, count); };
    const Vector<C> own = ((read(z) - k(MEAN)) - k(MEAN_LOW)) * k(RSTD);
    const Vector<C> other = ((read(w) - k(OTHER_MEAN)) - k(OTHER_MEAN_LOW)) * k(OTHER_RSTD);
    gradient = k(OWN) * own + k(OTHER) * other;
  }
  if (dgram) gradient += g_gram * (WHOLE ? load<C, C>(dgram + j) : load_some<C, C>(dgram + j, count));
  WHOLE ? store<T, C>(out + j, gradient) : store_some<T, C>(out + j, gradient, count);
}

template <class T, class C>
void write_rows(const Matrix& z, const Matrix& w, const std::vector<C>& table, const Matrix& dgram, double g_gram,
                const Matrix& out, int64_t begin, int64_t end) {
  const int64_t d = out.columns, whole = d / LANES<C> * LANES<C>;
  const C* const k = table.empty() ? nullptr : table.data();
  for (int64_t i = begin; i < end; ++i) {
    const T *const row_z = k ? z.row<T>(i) : nullptr, *const row_w = k ? w.row<T>(i) : nullptr;
    const C* const row_dgram = dgram ? dgram.row<C>(i) : nullptr;
    T* const row_out = out.row<T>(i);
    for (int64_t j = 0; j < whole; j += LANES<C>)
      write_gradient<T, C, true>(row_z, row_w, k, row_dgram, C(g_gram), row_out, j, LANES<C>);
    if (whole < d) write_gradient<T, C, false>(row_z, row_w, k, row_dgram, C(g_gram), row_out, whole, d - whole);
  }
}

template <class T>
void backward(const BackwardProblem& p) {
  using C = Wide<T>;
  const C* moments = static_cast<const C*>(p.moments);
  const int64_t n = p.t.rows, d = p.t.columns;
  std::vector<C> of_e, of_t, none;
  if (moments && p.grad_e) of_e = coefficients(moments, true, n, d, p.g_correlation);
  if (moments && p.grad_t) of_t = coefficients(moments, false, n, d, p.g_correlation);
  const int threads = n * (p.grad_e.columns + p.grad_t.columns + p.grad_s.columns) < 65536 ? 1 : max_threads();
  // A few rows at a time, so that the second gradient finds its inputs in the cache.
  constexpr int64_t ROWS = 4;
  parallel(threads, [&](int thread) {
    const Range range(n, thread, threads);
    for (int64_t i = range.begin; i < range.end; i += ROWS) {
      const int64_t end = std::min(i + ROWS, range.end);
      if (p.grad_e) write_rows<T>(p.e, p.t, of_e, p.dgram_e, p.g_gram, p.grad_e, i, end);
      if (p.grad_t) write_rows<T>(p.t, p.e, of_t, p.dgram_t, p.g_gram, p.grad_t, i, end);
      if (p.grad_s) write_rows<T>(p.e, p.t, none, p.dgram_s, p.g_gram, p.grad_s, i, end);
    }
  });
}

}  // namespace itrd::ITRD_ISA
