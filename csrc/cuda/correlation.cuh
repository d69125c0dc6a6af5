// L_corr = log2 Σ_j |v_j − 1|^(2α), v the diagonal of the cross-correlation: the parts that the kernels are made of.
//
// column_moments reads both matrices once and leaves the moments of one chunk of rows; finish_column merges the chunks
// in their order and forms v; finish_correlation sums over the columns and differentiates.
#pragma once

#include "interface.h"
#include "reduce.cuh"

namespace itrd {

constexpr int kStreamThreads = 256, kStreamBlocks = 1;
constexpr int kStreamWarps = kStreamThreads / kWarp;
constexpr int kStripColumns = 4 * kWarp;
constexpr int kPartials = 7;

template <class T>
struct Correlation {
  using A = wide_t<T>;
  View<T> s, t;  // (n, d)
  int n, d;
  int strips, chunks, chunk_rows;
  A* partials;  // (chunks, 7, d)
  A* moments;   // (8, d)
  A alpha;
};

// Moments in shared memory, field by field, so that the lanes of a warp meet different banks.
template <class A>
struct MomentSlots {
  A* shared;

  __device__ A* field(int slot, int lane, int k) const { return shared + (slot * 8 + k) * kWarp + lane; }
  __device__ void put(int slot, int lane, const Moments<A>& m) const {
    *field(slot, lane, 0) = m.count;
    *field(slot, lane, 1) = m.mean_s;
    *field(slot, lane, 2) = m.mean_t;
    *field(slot, lane, 3) = m.m2_s;
    *field(slot, lane, 4) = m.m2_t;
    *field(slot, lane, 5) = m.c_st;
    *field(slot, lane, 6) = m.deviation_s;
    *field(slot, lane, 7) = m.deviation_t;
  }
  __device__ Moments<A> get(int slot, int lane) const {
    return {*field(slot, lane, 0), *field(slot, lane, 1), *field(slot, lane, 2), *field(slot, lane, 3),
            *field(slot, lane, 4), *field(slot, lane, 5), *field(slot, lane, 6), *field(slot, lane, 7)};
  }
};

// Moments of rows [chunk_rows · chunk, …) of 128 columns. Each warp takes one row in eight, its threads shift by their
// own first row, and the warps merge pairwise through shared memory.
template <class T>
__device__ void column_moments(const Correlation<T>& c, int block, wide_t<T>* shared) {
  using A = wide_t<T>;
  int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, chunk = block / c.strips;
  Columns<A> columns(block % c.strips, c.d, c.s.four && c.t.four);
  int begin = chunk * c.chunk_rows + warp, end = min((chunk + 1) * c.chunk_rows, c.n);

  A shift_s[4] = {}, shift_t[4] = {};
  if (begin < end) {
    columns.load(c.s.row(begin), shift_s);
    columns.load(c.t.row(begin), shift_t);
  }
  A count = 0, x[4] = {}, y[4] = {}, xx[4] = {}, yy[4] = {}, xy[4] = {}, deviation_s[4] = {}, deviation_t[4] = {};
#pragma unroll 4
  for (int row = begin; row < end; row += kStreamWarps, count += 1) {
    A s[4], t[4];
    columns.load(c.s.row(row), s);
    columns.load(c.t.row(row), t);
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      A ds = s[q] - shift_s[q], dt = t[q] - shift_t[q];
      x[q] += ds;
      y[q] += dt;
      xx[q] += ds * ds;
      yy[q] += dt * dt;
      xy[q] += ds * dt;
      deviation_s[q] = fmax(deviation_s[q], fabs(ds));
      deviation_t[q] = fmax(deviation_t[q], fabs(dt));
    }
  }

  A origin_s[4], origin_t[4];
  columns.load(c.s.row(0), origin_s);
  columns.load(c.t.row(0), origin_t);
  Moments<A> m[4];
#pragma unroll
  for (int q = 0; q < 4; ++q) {
    A mean_x = count > 0 ? x[q] / count : 0, mean_y = count > 0 ? y[q] / count : 0;
    m[q] = {count,
            shift_s[q] - origin_s[q] + mean_x,
            shift_t[q] - origin_t[q] + mean_y,
            xx[q] - x[q] * mean_x,
            yy[q] - y[q] * mean_y,
            xy[q] - x[q] * mean_y,
            deviation_s[q],
            deviation_t[q]};
  }
  for (int half = kStreamWarps / 2; half > 0; half /= 2) {
    if (warp >= half && warp < 2 * half)
#pragma unroll
      for (int q = 0; q < 4; ++q) MomentSlots<A>{shared}.put((warp - half) * 4 + q, lane, m[q]);
    __syncthreads();
    if (warp < half)
#pragma unroll
      for (int q = 0; q < 4; ++q) m[q] = merge(m[q], MomentSlots<A>{shared}.get(warp * 4 + q, lane));
    __syncthreads();
  }
  if (warp > 0) return;
  A* out = c.partials + int64_t(chunk) * kPartials * c.d;
  auto store = [&](int row, A Moments<A>::* field) {
    columns.store(out + int64_t(row) * c.d, {m[0].*field, m[1].*field, m[2].*field, m[3].*field});
  };
  store(0, &Moments<A>::mean_s);
  store(1, &Moments<A>::mean_t);
  store(2, &Moments<A>::m2_s);
  store(3, &Moments<A>::m2_t);
  store(4, &Moments<A>::c_st);
  store(5, &Moments<A>::deviation_s);
  store(6, &Moments<A>::deviation_t);
}

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

// One column of a matrix brought to order one, for deviations whose squares leave the range of A: rare, so not
// unrolled, and in double, since its sums run over all rows in turn, and one row may outweigh what the others differ
// by.
template <class T>
struct ExtremeColumn {
  const View<T>& z;
  int n, j;
  double scale = 1, mean = 0;

  __device__ ExtremeColumn(const View<T>& z, int n, int j) : z(z), n(n), j(j) {
    // Halved, since the difference of two finite numbers can overflow.
    double largest = 0, sum = 0;
#pragma unroll 1
    for (int i = 0; i < n; ++i) largest = fmax(largest, fabs(0.5 * widen(z.row(i)[j]) - 0.5 * origin()));
    scale = largest > 0 ? power_to_one(wide_t<T>(largest)) : 1;
#pragma unroll 1
    for (int i = 0; i < n; ++i) sum += raw(i);
    mean = sum / n;
  }
  __device__ double origin() const { return widen(z.row(0)[j]); }
  __device__ double raw(int i) const { return widen(z.row(i)[j]) * scale - origin() * scale; }
  __device__ double operator()(int i) const { return raw(i) - mean; }
};

template <class A>
__device__ inline bool is_extreme(A deviation) {
  return deviation != 0 && !is_ordinary(deviation);
}

// v = (1/n) Σ ŝ t̂ and what the backward pass needs of column j, from its merged moments.
template <class T>
__device__ void finish_column(const Correlation<T>& c, int j) {
  using A = wide_t<T>;
  Moments<A> m = merged_moments(c, j);
  // Equal to the first row throughout; a NaN or inf has made the moments NaN.
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
    // high + low = origin + offset exactly (Knuth's TwoSum)
    A high = origin + offset, back = high - origin;
    c.moments[int64_t(row) * c.d + j] = high;
    c.moments[int64_t(row + 1) * c.d + j] = (origin - (high - back)) + (offset - back);
  };
  store_mean(kMeanS, widen(c.s.row(0)[j]), m.mean_s);
  store_mean(kMeanT, widen(c.t.row(0)[j]), m.mean_t);
  c.moments[int64_t(kRstdS) * c.d + j] = dead_s ? 0 : root / norm_s * scale_s;
  c.moments[int64_t(kRstdT) * c.d + j] = dead_t ? 0 : root / norm_t * scale_t;
  c.moments[int64_t(kV) * c.d + j] = v;
}

// L_corr by one block, once all v are there, as log-sum-exp: (1/256)^20 underflows float32. Also ∂L_corr/∂v.
template <class T>
__device__ wide_t<T> finish_correlation(const Correlation<T>& c, wide_t<T>* shared) {
  using A = wide_t<T>;
  const A* v = c.moments + int64_t(kV) * c.d;
  A* dv = c.moments + int64_t(kDV) * c.d;
  A largest = 0, sum = 0;
  for (int j = threadIdx.x; j < c.d; j += blockDim.x) largest = fmax(largest, fabs(v[j] - 1));
  largest = reduce_block(largest, Max(), shared);
  for (int j = threadIdx.x; j < c.d; j += blockDim.x) sum += dv[j] = pow(fabs(v[j] - 1) / largest, 2 * c.alpha);
  sum = reduce_block(sum, Sum(), shared);

  const A *rstd_s = c.moments + int64_t(kRstdS) * c.d, *rstd_t = c.moments + int64_t(kRstdT) * c.d;
  for (int j = threadIdx.x; j < c.d; j += blockDim.x) {
    // ∂L/∂v = 2α |e|^(2α−1) sign(e) / (ln 2 Σ|e|^(2α)), e = v − 1 < 0
    A e = v[j] - 1;
    bool dead = rstd_s[j] == 0 || rstd_t[j] == 0;
    dv[j] = dead ? 0 * e : 2 * c.alpha * dv[j] / (e * sum * A(0.69314718055994530942));
  }
  return 2 * c.alpha * log2(largest) + log2(sum);
}

}  // namespace itrd
