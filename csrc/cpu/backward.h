// The backward pass of both terms, one sweep over the rows: the correlation's gradient is formed from the saved
// moments, the Gram term's was formed in the forward pass and is scaled by its upstream gradient.
#pragma once

#include <algorithm>

#include "cpu/buffer.h"
#include "cpu/simd/vector.h"

namespace itrd::ITRD_ISA {

// ∂L/∂z_ij = own_j ẑ_ij + other_j ŵ_ij, ẑ = ((z − μ_z) − rounding of μ_z)/σ_z, of z and the other input w: vectors of
// these eight side by side, so that a row is swept with one pointer.
enum Coefficient { MEAN, MEAN_LOW, RSTD, OTHER_MEAN, OTHER_MEAN_LOW, OTHER_RSTD, OWN, OTHER, COEFFICIENTS };

// ∂v_j/∂s_ij = (1/σ_s,j) (t̂_ij/n − v_j ŝ_ij/(n−1)); for the teacher swap s and t
template <class C>
Buffer<C> coefficients(const C* moments, bool of_s, int64_t n, int64_t d, double upstream) {
  constexpr int64_t L = LANES<C>;
  Buffer<C> table = allocate<C>((d + L - 1) / L * L * COEFFICIENTS);
  const C *own = moments, *other = moments + (kMeanT - kMeanS) * d;
  if (!of_s) std::swap(own, other);
  const C share = C(upstream / n), minus_share = C(-upstream / (n - 1));
  for (int64_t j = 0; j < d; j += L) {
    C* const to = table.get() + j * COEFFICIENTS;
    auto read = [&](const C* row) { return load_within<C, C>(row + j, d - j); };
    auto write = [&](int64_t c, Vector<C> x) { store<C, C>(to + c * L, x); };
    for (int64_t c = 0; c < 3; ++c) {
      write(MEAN + c, read(own + c * d));
      write(OTHER_MEAN + c, read(other + c * d));
    }
    const Vector<C> dv = read(moments + kDV * d), rstd = read(own + 2 * d);
    write(OTHER, share * dv * rstd);
    write(OWN, minus_share * dv * rstd * read(moments + kV * d));
  }
  return table;
}

// A part of a row: fewer columns than a vector has, a vector, or one that goes past the caches.
enum class Part { some, whole, streamed };

// Columns j, j + 1, … of ROWS rows from i; the table and the Gram term's gradient may be missing.
template <class T, class C, int ROWS, Part PART>
inline void write_gradient(const Matrix& z, const Matrix& w, const C* table, const Matrix& dgram, C g_gram,
                           const Matrix& out, int64_t i, int64_t j, int64_t count) {
  constexpr int64_t L = LANES<C>;
  constexpr bool WHOLE = PART != Part::some;
  auto read = [&](const T* from) { return WHOLE ? load<T, C>(from + j) : load_some<T, C>(from + j, count); };
  Vector<C> gradient[ROWS] = {};
  if (table) {
    const C* const at = table + j * COEFFICIENTS;
    Vector<C> k[COEFFICIENTS];
#pragma GCC unroll 8
    for (int c = 0; c < COEFFICIENTS; ++c) k[c] = load<C, C>(at + c * L);
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; ++r) {
      const Vector<C> own = ((read(z.row<T>(i + r)) - k[MEAN]) - k[MEAN_LOW]) * k[RSTD];
      const Vector<C> other = ((read(w.row<T>(i + r)) - k[OTHER_MEAN]) - k[OTHER_MEAN_LOW]) * k[OTHER_RSTD];
      gradient[r] = k[OWN] * own + k[OTHER] * other;
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < ROWS; ++r) {
    if (dgram) {
      const C* const from = dgram.row<C>(i + r) + j;
      gradient[r] += g_gram * (WHOLE ? load<C, C>(from) : load_some<C, C>(from, count));
    }
    T* const to = out.row<T>(i + r) + j;
    if constexpr (PART == Part::streamed)
      stream<T, C>(to, gradient[r]);
    else
      WHOLE ? store<T, C>(to, gradient[r]) : store_some<T, C>(to, gradient[r], count);
  }
}

// Rows that share a load of the coefficients; more of a page's stride evict each other from the L1 cache.
constexpr int64_t GRADIENT_ROWS = 2;

// From this size on a gradient goes past the caches, which saves reading what it overwrites: it would not stay there.
constexpr int64_t STREAMED = int64_t(32) << 20;

// Whether rows of `out` can be streamed, and are worth it.
template <class T, class C>
bool streams(const Matrix& out) {
  constexpr std::size_t VECTOR = LANES<C> * sizeof(T);
  const bool aligned = reinterpret_cast<std::uintptr_t>(out.data) % VECTOR == 0 && out.stride * sizeof(T) % VECTOR == 0;
  return aligned && out.rows * out.columns * int64_t(sizeof(T)) >= STREAMED;
}

template <class T, class C>
void write_rows(const Matrix& z, const Matrix& w, const C* table, const Matrix& dgram, double g_gram, const Matrix& out,
                int64_t begin, int64_t end) {
  constexpr int64_t L = LANES<C>;
  const bool streamed = streams<T, C>(out);
  auto rows = [&](auto count, int64_t i) {
    constexpr int ROWS = decltype(count)::value;
    auto columns = [&](auto part, int64_t j, int64_t count) {
      write_gradient<T, C, ROWS, decltype(part)::value>(z, w, table, dgram, C(g_gram), out, i, j, count);
    };
    int64_t j = 0;
    if (streamed)
      for (; j + L <= out.columns; j += L) columns(std::integral_constant<Part, Part::streamed>(), j, L);
    for (; j + L <= out.columns; j += L) columns(std::integral_constant<Part, Part::whole>(), j, L);
    if (j < out.columns) columns(std::integral_constant<Part, Part::some>(), j, out.columns - j);
  };
  int64_t i = begin;
  for (; i + GRADIENT_ROWS <= end; i += GRADIENT_ROWS) rows(std::integral_constant<int, GRADIENT_ROWS>(), i);
  for (; i < end; ++i) rows(std::integral_constant<int, 1>(), i);
}

template <class T>
void backward(const BackwardProblem& p) {
  using C = Wide<T>;
  const C* moments = static_cast<const C*>(p.moments);
  const int64_t n = p.t.rows, d = p.t.columns;
  Buffer<C> of_e, of_t;
  if (moments && p.grad_e) of_e = coefficients(moments, true, n, d, p.g_correlation);
  if (moments && p.grad_t) of_t = coefficients(moments, false, n, d, p.g_correlation);
  const int threads = n * (p.grad_e.columns + p.grad_t.columns + p.grad_s.columns) < 32768 ? 1 : max_threads();
  // A few rows at a time, so that the second gradient finds its inputs in the cache.
  constexpr int64_t ROWS = 2 * GRADIENT_ROWS;
  parallel(threads, [&](int thread) {
    // The same rows together for any number of threads.
    const Range range((n + ROWS - 1) / ROWS, thread, threads);
    for (int64_t i = range.begin * ROWS; i < std::min(range.end * ROWS, n); i += ROWS) {
      const int64_t end = std::min(i + ROWS, n);
      if (p.grad_e) write_rows<T>(p.e, p.t, of_e.get(), p.dgram_e, p.g_gram, p.grad_e, i, end);
      if (p.grad_t) write_rows<T>(p.t, p.e, of_t.get(), p.dgram_t, p.g_gram, p.grad_t, i, end);
      if (p.grad_s) write_rows<T>(p.e, p.t, static_cast<C*>(nullptr), p.dgram_s, p.g_gram, p.grad_s, i, end);
    }
    end_of_stream();
  });
}

}  // namespace itrd::ITRD_ISA
