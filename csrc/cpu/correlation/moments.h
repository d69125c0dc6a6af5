// Correlation loss (Eq. 6): L = log2 Σ_j |v_j − 1|^(2α), v_j = 1/n Σ_i ŝ_ij t̂_ij. See csrc/README.md.
#pragma once

#include <algorithm>

#include "cpu/correlation/extreme_columns.h"
#include "cpu/simd/power.h"

namespace itrd::ITRD_ISA {

// Five centred moments of a set of rows, for each of `columns` columns: laid out one after the other.
template <class C>
struct Moments {
  C *mean_s, *mean_t, *square_s, *square_t, *product;
  Moments(C* data, int64_t columns)
      : mean_s(data),
        mean_t(data + columns),
        square_s(data + 2 * columns),
        square_t(data + 3 * columns),
        product(data + 4 * columns) {}
};

constexpr int64_t GROUP = 8;           // rows whose moments are formed in registers
constexpr int64_t SECTION = 256;       // rows merged in the features' precision; sections merge in double
constexpr int64_t WIDE_BLOCK = 2048;   // columns of one task
constexpr int64_t NARROW_BLOCK = 128;  // where all rows are one chunk, so that there are several tasks
constexpr int64_t MAX_CHUNKS = 64;     // row chunks of one task each, merged at the end in a fixed order

// Merge the moments of `add` rows into those of `have` rows (Chan): both of one column vector.
template <class V, class S>
inline void merge(S have, S add, V& mean_s, V& mean_t, V& square_s, V& square_t, V& product, V s, V t, V ss, V tt,
                  V st) {
  const S share = add / (have + add), weight = have * share;
  const V ds = s - mean_s, dt = t - mean_t;
  mean_s += share * ds;
  mean_t += share * dt;
  square_s += ss + weight * ds * ds;
  square_t += tt + weight * dt * dt;
  product += st + weight * ds * dt;
}

// Columns of both inputs, from one row on, and the row that is subtracted from all: near the column's mean as a rule,
// so that a small deviation from a large mean keeps its digits, and a dead column is zero exactly.
template <class T>
struct Rows {
  const T *s, *t, *base_s, *base_t;
  int64_t stride_s, stride_t;
};

// Moments of up to GROUP rows of columns j, j + 1, … of one vector, merged into those of the `have` rows before them.
template <class T, class C, bool WHOLE>
inline void add_group(const Rows<T>& from, int64_t rows, int64_t have, Moments<C> to, int64_t j, int64_t count) {
  using V = Vector<C>;
  auto read = [&](const T* z) { return WHOLE ? load<T, C>(z + j) : load_some<T, C>(z + j, count); };
  const V base_s = read(from.base_s), base_t = read(from.base_t);
  V x[GROUP] = {}, y[GROUP] = {}, mean_s{}, mean_t{}, ss{}, tt{}, st{};
#pragma GCC unroll 8
  for (int64_t r = 0; r < GROUP; ++r) {
    if (r >= rows) break;
    x[r] = read(from.s + r * from.stride_s) - base_s;
    y[r] = read(from.t + r * from.stride_t) - base_t;
    mean_s += x[r];
    mean_t += y[r];
  }
  const C share = C(1) / C(rows);
  mean_s *= share;
  mean_t *= share;
#pragma GCC unroll 8
  for (int64_t r = 0; r < GROUP; ++r) {
    if (r >= rows) break;
    const V ds = x[r] - mean_s, dt = y[r] - mean_t;
    ss += ds * ds;
    tt += dt * dt;
    st += ds * dt;
  }
  V m_s = load<C, C>(to.mean_s + j), m_t = load<C, C>(to.mean_t + j), q_s = load<C, C>(to.square_s + j),
    q_t = load<C, C>(to.square_t + j), p = load<C, C>(to.product + j);
  merge(C(have), C(rows), m_s, m_t, q_s, q_t, p, mean_s, mean_t, ss, tt, st);
  store<C, C>(to.mean_s + j, m_s);
  store<C, C>(to.mean_t + j, m_t);
  store<C, C>(to.square_s + j, q_s);
  store<C, C>(to.square_t + j, q_t);
  store<C, C>(to.product + j, p);
}

// Moments of rows [begin, end) of columns [first, first + columns), in double.
template <class T>
void chunk_moments(const Matrix& s, const Matrix& t, int64_t begin, int64_t end, int64_t first, int64_t columns,
                   double* result) {
  using C = Wide<T>;
  constexpr int64_t L = LANES<C>;
  const int64_t padded = (columns + L - 1) / L * L;
  const Buffer<C> state = allocate<C>(5 * padded);
  const Moments<C> section(state.get(), padded);
  Moments<double> all(result, columns);
  for (int64_t top = begin; top < end; top += SECTION) {
    const int64_t bottom = top + SECTION < end ? top + SECTION : end;
    std::fill_n(state.get(), 5 * padded, C(0));
    Rows<T> at{nullptr, nullptr, s.row<T>(top) + first, t.row<T>(top) + first, s.stride, t.stride};
    // Rows of a page's stride evict each other from the L1 cache.
    const int64_t group = s.stride * sizeof(T) % 4096 == 0 ? GROUP / 2 : GROUP;
    for (int64_t i = top; i < bottom; i += group) {
      at.s = s.row<T>(i) + first;
      at.t = t.row<T>(i) + first;
      const int64_t rows = std::min(group, bottom - i), whole = columns / L * L;
      if (rows == GROUP) {
        for (int64_t j = 0; j < whole; j += L) add_group<T, C, true>(at, GROUP, i - top, section, j, L);
      } else if (rows == GROUP / 2) {
        for (int64_t j = 0; j < whole; j += L) add_group<T, C, true>(at, GROUP / 2, i - top, section, j, L);
      } else {
        for (int64_t j = 0; j < whole; j += L) add_group<T, C, true>(at, rows, i - top, section, j, L);
      }
      if (whole < columns) add_group<T, C, false>(at, rows, i - top, section, whole, columns - whole);
    }
    for (int64_t j = 0; j < columns; ++j)
      merge<double, double>(top - begin, bottom - top, all.mean_s[j], all.mean_t[j], all.square_s[j], all.square_t[j],
                            all.product[j], to_float(at.base_s[j]) + double(section.mean_s[j]),
                            to_float(at.base_t[j]) + double(section.mean_t[j]), section.square_s[j],
                            section.square_t[j], section.product[j]);
  }
}

// Means, 1/σ and v of columns [first, first + columns) from their moments; row kDV of `moments` holds |e_j| for now.
template <class T>
void finish_columns(const Matrix& s, const Matrix& t, int64_t first, int64_t columns, double* data, Wide<T>* moments) {
  using C = Wide<T>;
  const int64_t n = s.rows, d = s.columns;
  const Moments<double> m(data, columns);
  C* const out = moments + first;
  auto write = [out, d](int64_t j, const Column& column) {
    out[kMeanS * d + j] = C(column.mean_s);
    out[kMeanLowS * d + j] = C(column.mean_s - double(C(column.mean_s)));
    out[kRstdS * d + j] = C(column.rstd_s);
    out[kMeanT * d + j] = C(column.mean_t);
    out[kMeanLowT * d + j] = C(column.mean_t - double(C(column.mean_t)));
    out[kRstdT * d + j] = C(column.rstd_t);
    out[kV * d + j] = C(column.v);
    out[kDV * d + j] = C(1 - column.v);
  };
  auto column = [m, n](int64_t j) -> Column {
    // σ² = Σ(z − μ)² / (n − 1),  v = 1/n Σ(s − μ_s)(t − μ_t) / (σ_s σ_t)
    const double rstd_s = std::sqrt((n - 1) / m.square_s[j]), rstd_t = std::sqrt((n - 1) / m.square_t[j]);
    return {m.mean_s[j], rstd_s, m.mean_t[j], rstd_t, m.product[j] * rstd_s * rstd_t / n};
  };
  int64_t odd = 0;
#pragma GCC ivdep
  for (int64_t j = 0; j < columns; ++j) {
    write(j, column(j));
    odd += !(in_range<T>(m.square_s[j]) & in_range<T>(m.square_t[j]));
  }
  if (odd == 0) return;
  for (int64_t j = 0; j < columns; ++j)
    if (!in_range<T>(m.square_s[j]) || !in_range<T>(m.square_t[j]))
      write(j, careful_column<T>(s, t, first + j, m.square_s[j], m.square_t[j], column(j)));
}

// Turn |e_j| (row kDV) into ∂L/∂v_j; returns L.
template <class C>
double finish_loss(C* moments, int64_t d, double alpha) {
  constexpr int64_t L = LANES<C>;
  C* const e = moments + kDV * d;
  // log2 Σ|e|^(2α) = 2α log2 max|e| + log2 Σ(|e|/max|e|)^(2α)
  Vector<C> most{}, sum{};
  for (int64_t j = 0; j < d; j += L) {
    const Vector<C> x = load_within<C, C>(e + j, d - j);
    most = x > most ? x : most;
    sum += x;
  }
  C largest = 0;
  for (int i = 0; i < L; ++i) largest = std::max(largest, C(most[i]));
  if (const C all = sum_lanes<C>(sum); !(all == all)) {
    std::fill(e, e + d, all);
    return all;
  }
  double total = 0;
  for (int64_t j = 0; j < d; j += L) {
    const Vector<C> x = load_within<C, C>(e + j, d - j), y = power(x / largest, 2 * alpha);
    total += sum_lanes<C>(y);
    // ∂L/∂v_j = −2α |e_j|^(2α−1) / (ln 2 · Σ_k |e_k|^(2α)), but for the sum
    store_within<C, C>(e + j, y / x, d - j);
  }
  const C factor = C(-2 * alpha / (M_LN2 * total));
  for (int64_t j = 0; j < d; ++j) e[j] *= factor;
  return 2 * alpha * std::log2(double(largest)) + std::log2(total);
}

template <class T>
double correlation_forward(const Matrix& s, const Matrix& t, double alpha, void* moments) {
  using C = Wide<T>;
  const int64_t n = s.rows, d = s.columns;
  int64_t chunk = (n + MAX_CHUNKS - 1) / MAX_CHUNKS;
  chunk = (chunk + SECTION - 1) / SECTION * SECTION;
  const int64_t chunks = (n + chunk - 1) / chunk, width = chunks > 1 ? WIDE_BLOCK : NARROW_BLOCK;
  const int64_t blocks = (d + width - 1) / width;
  // partial[chunk][block]: five moments of each of the block's columns
  const Buffer<double> partial = allocate<double>(chunks * 5 * d);
  std::fill_n(partial.get(), chunks * 5 * d, 0.0);
  C* const result = static_cast<C*>(moments);
  const int64_t tasks = chunks * blocks;
  const int threads = n * d < 32768 ? 1 : int(std::min<int64_t>(max_threads(), tasks));
  auto columns_of = [&](int64_t block) { return std::min(width, d - block * width); };
  parallel(threads, [&](int thread) {
    const Range range(tasks, thread, threads);
    for (int64_t task = range.begin; task < range.end; ++task) {
      const int64_t c = task / blocks, b = task % blocks, first = b * width;
      chunk_moments<T>(s, t, c * chunk, std::min(n, (c + 1) * chunk), first, columns_of(b),
                       partial.get() + 5 * (c * d + first));
    }
  });
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t first = b * width, columns = columns_of(b);
    const Moments<double> all(partial.get() + 5 * first, columns);
    for (int64_t c = 1; c < chunks; ++c) {
      const Moments<double> add(partial.get() + 5 * (c * d + first), columns);
      const double have = c * chunk, rows = std::min(n, (c + 1) * chunk) - c * chunk;
      for (int64_t j = 0; j < columns; ++j)
        merge(have, rows, all.mean_s[j], all.mean_t[j], all.square_s[j], all.square_t[j], all.product[j], add.mean_s[j],
              add.mean_t[j], add.square_s[j], add.square_t[j], add.product[j]);
    }
    finish_columns<T>(s, t, first, columns, partial.get() + 5 * first, result);
  }
  return finish_loss(result, d, alpha);
}

}  // namespace itrd::ITRD_ISA
