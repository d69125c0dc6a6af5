// L_corr = log2 Σ_j |v_j − 1|^(2α), v the diagonal of the cross-correlation, and ∂L_corr/∂v, from the columns' moments:
// finish_column merges the chunks of rows in their order and forms v; finish_correlation sums over the columns.
#pragma once

#include "column_moments.cuh"

namespace itrd {

// The moments of all rows of column j: those of the chunks, merged in their order.
template <class T>
__device__ Moments<wide_t<T>> merged_moments(const Correlation<T>& c, int j) {
  using A = wide_t<T>;
  Moments<A> m = {};
  for (int chunk = 0; chunk < c.chunks; ++chunk) {
    const A* p = c.partials + int64_t(chunk) * kPartials * c.d + j;
    int64_t d = c.d;
    A rows = min(c.chunk_rows, c.n - chunk * c.chunk_rows);
    Moments<A> next = {rows, p[0], p[d], p[2 * d], p[3 * d], p[4 * d], p[5 * d], p[6 * d]};
    m = chunk == 0 ? next : merge(m, next);
  }
  return m;
}

// Column j of a matrix, brought to order one: for a column whose deviations have squares beyond the range of A. That is
// rare, hence not unrolled. It computes in double, since its sums run over all rows in turn, and one row may outweigh
// what the others differ by.
template <class T>
struct ExtremeColumn {
  const View<T>& z;
  int n, j;
  double scale = 1, mean = 0;  // a power of two; the mean of raw(i)

  __device__ ExtremeColumn(const View<T>& z, int n, int j) : z(z), n(n), j(j) {
    // Both are halved, since the difference of two finite numbers can overflow.
    double largest = 0, sum = 0;
#pragma unroll 1
    for (int i = 0; i < n; ++i) largest = fmax(largest, fabs(0.5 * widen(z.row(i)[j]) - 0.5 * origin()));
    scale = largest > 0 ? power_to_one(wide_t<T>(largest)) : 1;
#pragma unroll 1
    for (int i = 0; i < n; ++i) sum += raw(i);
    mean = sum / n;
  }
  __device__ double origin() const { return widen(z.row(0)[j]); }
  // The scaled element of row i, relative to the first row's; operator() centres it.
  __device__ double raw(int i) const { return widen(z.row(i)[j]) * scale - origin() * scale; }
  __device__ double operator()(int i) const { return raw(i) - mean; }
};

// Whether a column of this largest deviation must be scaled; a NaN counts as extreme, and stays NaN.
template <class A>
__device__ inline bool is_extreme(A deviation) {
  return deviation != 0 && !is_ordinary(deviation);
}

// Forms v = (1/n) Σ_i ŝ_ij t̂_ij of column j from its moments, and writes what the backward pass needs of the column.
template <class T>
__device__ void finish_column(const Correlation<T>& c, int j) {
  using A = wide_t<T>;
  Moments<A> m = merged_moments(c, j);
  // A dead column equals its first element throughout. A NaN or an infinity is not dead: it has made the moments NaN.
  bool dead_s = m.deviation_s == 0 && m.m2_s == 0, dead_t = m.deviation_t == 0 && m.m2_t == 0;
  A scale_s = 1, scale_t = 1;
  if (is_extreme(m.deviation_s) || is_extreme(m.deviation_t)) {
    ExtremeColumn<T> s(c.s, c.n, j), t(c.t, c.n, j);
    double m2_s = 0, m2_t = 0, c_st = 0;
#pragma unroll 1
    for (int i = 0; i < c.n; ++i) {
      m2_s += s(i) * s(i);
      m2_t += t(i) * t(i);
      c_st += s(i) * t(i);
    }
    m.m2_s = A(m2_s);
    m.m2_t = A(m2_t);
    m.c_st = A(c_st);
    scale_s = A(s.scale);
    scale_t = A(t.scale);
    m.mean_s = A(s.mean / s.scale);
    m.mean_t = A(t.mean / t.scale);
  }
  A norm_s = sqrt(m.m2_s), norm_t = sqrt(m.m2_t), root = sqrt(A(c.n - 1));
  A v = dead_s || dead_t ? 0 * m.c_st : m.c_st / norm_s / norm_t * (A(c.n - 1) / A(c.n));

  auto store_mean = [&](int row, A origin, A offset) {
    // Knuth's TwoSum: high + low = origin + offset, exactly.
    A high = origin + offset, back = high - origin;
    c.moments[int64_t(row) * c.d + j] = high;
    c.moments[int64_t(row + 1) * c.d + j] = (origin - (high - back)) + (offset - back);
  };
  store_mean(kMeanS, widen(c.s.row(0)[j]), m.mean_s);
  store_mean(kMeanT, widen(c.t.row(0)[j]), m.mean_t);
  c.moments[int64_t(kRstdS) * c.d + j] = dead_s ? 0 : root / norm_s * scale_s;
  c.moments[int64_t(kRstdT) * c.d + j] = dead_t ? 0 : root / norm_t * scale_t;
  c.moments[int64_t(kA) * c.d + j] = v;
}

// Returns L_corr and writes ∂L_corr/∂v, by one block once all v are there. The sum of powers is taken relative to the
// largest, as in log-sum-exp, since (1/256)^20 underflows float32.
template <class T>
__device__ wide_t<T> finish_correlation(const Correlation<T>& c, wide_t<T>* shared) {
  using A = wide_t<T>;
  // Rows kA and kB hold v and its derivative until the end.
  A* v = c.moments + int64_t(kA) * c.d;
  A* dv = c.moments + int64_t(kB) * c.d;
  A largest = 0, sum = 0;
  for (int j = threadIdx.x; j < c.d; j += blockDim.x) largest = fmax(largest, fabs(v[j] - 1));
  largest = reduce_block(largest, Max(), shared);
  for (int j = threadIdx.x; j < c.d; j += blockDim.x) sum += dv[j] = pow(fabs(v[j] - 1) / largest, 2 * c.alpha);
  sum = reduce_block(sum, Sum(), shared);

  const A *rstd_s = c.moments + int64_t(kRstdS) * c.d, *rstd_t = c.moments + int64_t(kRstdT) * c.d;
  for (int j = threadIdx.x; j < c.d; j += blockDim.x) {
    // ∂L/∂v_j = 2α |e_j|^(2α−1) sign(e_j) / (ln 2 Σ|e|^(2α)), e = v − 1 < 0
    A e = v[j] - 1;
    bool dead = rstd_s[j] == 0 || rstd_t[j] == 0;
    A slope = dead ? 0 * e : 2 * c.alpha * dv[j] / (e * sum * kLn2<A>);
    // a_j = ∂L/∂v_j / n and b_j = v_j ∂L/∂v_j / (n − 1), all that the backward pass needs of v and n
    dv[j] = v[j] * slope / max(c.n - 1, 1);
    v[j] = slope / c.n;
  }
  return 2 * c.alpha * log2(largest) + log2(sum);
}

}  // namespace itrd
