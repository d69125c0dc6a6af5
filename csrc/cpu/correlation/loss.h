// Correlation loss (Eq. 6): L = log2 Σ_j |v_j − 1|^(2α), v_j = 1/n Σ_i ŝ_ij t̂_ij. See docs/design/mathematics.md.
#pragma once

#include <algorithm>
#include <cmath>

#include "cpu/correlation/extreme_columns.h"
#include "cpu/correlation/moments.h"
#include "cpu/simd/power.h"

namespace itrd::ITRD_ISA {

constexpr int64_t kMaxChunks = 64;     // chunks of rows, each a task; they are merged at the end in a fixed order
constexpr int64_t kWideStrip = 2048;   // columns of one task
constexpr int64_t kNarrowStrip = 128;  // where all rows are one chunk, so that there are several tasks

// Means, 1/σ and v of columns [first, first + columns) from their moments. Rows kA and kB of `moments` hold v_j and
// |e_j| = |v_j − 1| until finish_loss.
template <class T>
void finish_columns(const Matrix& s, const Matrix& t, int64_t first, int64_t columns, double* data, Wide<T>* moments) {
  using C = Wide<T>;
  const int64_t n = s.rows, d = s.columns;
  const ColumnMoments<double> m(data, columns);
  C* const out = moments + first;
  auto write = [out, d](int64_t j, const SavedColumn& column) {
    out[kMeanS * d + j] = C(column.mean_s);
    out[kMeanLowS * d + j] = C(column.mean_s - double(C(column.mean_s)));
    out[kRstdS * d + j] = C(column.rstd_s);
    out[kMeanT * d + j] = C(column.mean_t);
    out[kMeanLowT * d + j] = C(column.mean_t - double(C(column.mean_t)));
    out[kRstdT * d + j] = C(column.rstd_t);
    out[kA * d + j] = C(column.v);
    out[kB * d + j] = C(1 - column.v);
  };
  auto column = [m, n](int64_t j) -> SavedColumn {
    // σ² = Σ(z − μ)² / (n − 1),  v = 1/n Σ(s − μ_s)(t − μ_t) / (σ_s σ_t)
    const double rstd_s = std::sqrt((n - 1) / m.square_s[j]), rstd_t = std::sqrt((n - 1) / m.square_t[j]);
    return {m.mean_s[j], rstd_s, m.mean_t[j], rstd_t, m.product[j] * rstd_s * rstd_t / n};
  };
  int64_t extreme = 0;
#pragma GCC ivdep
  for (int64_t j = 0; j < columns; ++j) {
    write(j, column(j));
    extreme += !(in_range<T>(m.square_s[j]) & in_range<T>(m.square_t[j]));
  }
  if (extreme == 0) return;
  for (int64_t j = 0; j < columns; ++j)
    if (!in_range<T>(m.square_s[j]) || !in_range<T>(m.square_t[j]))
      write(j, extreme_column<T>(s, t, first + j, m.square_s[j], m.square_t[j], column(j)));
}

// Turns v_j and |e_j| into a_j = ∂L/∂v_j / n and b_j = v_j ∂L/∂v_j / (n − 1), and returns L.
template <class C>
double finish_loss(C* moments, int64_t n, int64_t d, double alpha) {
  constexpr int64_t lanes = kLanes<C>;
  C *const v = moments + kA * d, *const e = moments + kB * d;
  // log2 Σ|e|^(2α) = 2α log2 max|e| + log2 Σ(|e|/max|e|)^(2α)
  Vector<C> most{}, sum{};
  for (int64_t j = 0; j < d; j += lanes) {
    const Vector<C> x = load_within<C, C>(e + j, d - j);
    most = x > most ? x : most;
    sum += x;
  }
  C largest = 0;
  for (int i = 0; i < lanes; ++i) largest = std::max(largest, C(most[i]));
  if (const C all = sum_lanes<C>(sum); !(all == all)) {
    std::fill(v, v + d, all);
    std::fill(e, e + d, all);
    return all;
  }
  double total = 0;
  for (int64_t j = 0; j < d; j += lanes) {
    const Vector<C> x = load_within<C, C>(e + j, d - j), y = power(x / largest, 2 * alpha);
    total += sum_lanes<C>(y);
    // ∂L/∂v_j = −2α |e_j|^(2α−1) / (ln 2 · Σ_k |e_k|^(2α)), but for the sum
    store_within<C, C>(e + j, y / x, d - j);
  }
  const double factor = -2 * alpha / (M_LN2 * total);
  const C to_a = C(factor / n), to_b = C(factor / std::max<int64_t>(n - 1, 1));
  for (int64_t j = 0; j < d; ++j) {
    const C a = to_a * e[j], b = to_b * e[j] * v[j];
    v[j] = a;
    e[j] = b;
  }
  return 2 * alpha * std::log2(double(largest)) + std::log2(total);
}

// The loss. `moments` (kMoments, d) of Wide<T> is left with what the backward pass needs.
template <class T>
double correlation_forward(const Matrix& s, const Matrix& t, double alpha, void* moments) {
  using C = Wide<T>;
  const int64_t n = s.rows, d = s.columns;
  int64_t chunk = (n + kMaxChunks - 1) / kMaxChunks;
  chunk = (chunk + kSectionRows - 1) / kSectionRows * kSectionRows;
  const int64_t chunks = (n + chunk - 1) / chunk, width = chunks > 1 ? kWideStrip : kNarrowStrip;
  const int64_t strips = (d + width - 1) / width;
  // partial[chunk][strip]: five moments of each of the strip's columns
  const Buffer<double> partial = allocate<double>(chunks * 5 * d);
  std::fill_n(partial.get(), chunks * 5 * d, 0.0);
  C* const result = static_cast<C*>(moments);
  const int64_t tasks = chunks * strips;
  const int threads = n * d < 32768 ? 1 : int(std::min<int64_t>(max_threads(), tasks));
  auto columns_of = [&](int64_t strip) { return std::min(width, d - strip * width); };
  parallel(threads, [&](int thread) {
    const Range range(tasks, thread, threads);
    for (int64_t task = range.begin; task < range.end; ++task) {
      const int64_t c = task / strips, strip = task % strips, first = strip * width;
      chunk_moments<T>(s, t, c * chunk, std::min(n, (c + 1) * chunk), first, columns_of(strip),
                       partial.get() + 5 * (c * d + first));
    }
  });
  for (int64_t strip = 0; strip < strips; ++strip) {
    const int64_t first = strip * width, columns = columns_of(strip);
    const ColumnMoments<double> all(partial.get() + 5 * first, columns);
    for (int64_t c = 1; c < chunks; ++c) {
      const ColumnMoments<double> add(partial.get() + 5 * (c * d + first), columns);
      const double have = c * chunk, rows = std::min(n, (c + 1) * chunk) - c * chunk;
      for (int64_t j = 0; j < columns; ++j)
        merge(have, rows, all.mean_s[j], all.mean_t[j], all.square_s[j], all.square_t[j], all.product[j], add.mean_s[j],
              add.mean_t[j], add.square_s[j], add.square_t[j], add.product[j]);
    }
    finish_columns<T>(s, t, first, columns, partial.get() + 5 * first, result);
  }
  return finish_loss(result, n, d, alpha);
}

}  // namespace itrd::ITRD_ISA
