// The moments of each pair of columns, which the correlation loss is made from: one block's part of reading S and T.
//
// Five centred moments of a pair (two means, two sums of squares, one of products) give v, the diagonal of the
// cross-correlation matrix, so that one pass over both matrices is enough.
#pragma once

#include "interface.h"
#include "reduce.cuh"
#include "streaming.cuh"

namespace itrd {

constexpr int kPartials = 7;  // rows of Correlation::partials, one for each field of Moments but the count

// The correlation loss of z_e (here s) and z_t.
template <class T>
struct Correlation {
  using A = wide_t<T>;
  View<T> s, t;  // (n, d)
  int n, d;
  // The columns are cut into strips of 128, the rows into chunks of chunk_rows; a block takes one chunk of one strip.
  int strips, chunks, chunk_rows;
  A* partials;  // (chunks, 7, d) the moments of each chunk of rows
  A* moments;   // (8, d) what the backward pass needs, row by row as `enum Moment` says
  A alpha;
};

// Count, means, sums of squares and of products of a pair of columns, over some of the rows: m2_s = Σ (s − mean_s)²,
// c_st = Σ (s − mean_s)(t − mean_t). The means are relative to a common origin, the pair's first
// row, so that a mean of 10⁴ costs a deviation of 1 nothing. The deviation of a column is its largest, max|z − mean|,
// to within a factor of n.
template <class A>
struct Moments {
  A count, mean_s, mean_t, m2_s, m2_t, c_st, deviation_s, deviation_t;
};

// The moments of the rows of both a and b, by Chan's formula: M2 = M2ₐ + M2_b + δ² nₐ n_b / n,
// mean = meanₐ + δ n_b / n, δ = mean_b − meanₐ.
template <class A>
__device__ inline Moments<A> merge(const Moments<A>& a, const Moments<A>& b) {
  if (b.count == 0) return a;
  A count = a.count + b.count, share = b.count / count, weight = a.count * share;
  A ds = b.mean_s - a.mean_s, dt = b.mean_t - a.mean_t;
  return {count,
          a.mean_s + ds * share,
          a.mean_t + dt * share,
          a.m2_s + b.m2_s + ds * ds * weight,
          a.m2_t + b.m2_t + dt * dt * weight,
          a.c_st + b.c_st + ds * dt * weight,
          fmax(fmax(a.deviation_s, b.deviation_s), fabs(ds)),
          fmax(fmax(a.deviation_t, b.deviation_t), fabs(dt))};
}

// Moments in shared memory: a slot holds one for each lane of a warp, field by field, so that the lanes meet different
// banks.
template <class A>
struct MomentSlots {
  A* shared;  // (slots, 8, 32)

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

// Writes the moments of one chunk of rows of one strip of columns. Each warp takes one row in eight; its threads
// subtract the first row that they meet, so that the sums of squares stay exact; and the warps merge in pairs through
// shared memory.
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

}  // namespace itrd
