// The backward pass of both losses in one sweep over the rows: the gradient of the correlation loss is formed from the
// saved moments; that of the mutual-information loss was formed in the forward pass, and is scaled by its upstream
// gradient.
#pragma once

#include <algorithm>

#include "cpu/buffer.h"
#include "cpu/simd/load_store.h"

namespace itrd::ITRD_ISA {

// What the gradient with respect to an input z needs of each column j, where w is the other input:
//   ∂L/∂z_ij = own_j ẑ_ij + other_j ŵ_ij,   ẑ = ((z − μ_z) − rounding error of μ_z)/σ_z
// A table of them has vectors of these eight side by side, so that a row is swept with one pointer.
enum ColumnFactor {
  kOwnMean,
  kOwnMeanLow,
  kOwnRstd,
  kOtherMean,
  kOtherMeanLow,
  kOtherRstd,
  kOwnFactor,
  kOtherFactor,
  kColumnFactors
};

// The table for the student, or for the teacher, where s and t change places:
//   ∂L/∂s_ij = (1/σ_s,j) (a_j t̂_ij − b_j ŝ_ij)
template <class C>
Buffer<C> column_factors(const C* moments, bool of_s, int64_t d, C upstream) {
  constexpr int64_t lanes = kLanes<C>;
  Buffer<C> table = allocate<C>((d + lanes - 1) / lanes * lanes * kColumnFactors);
  const C *own = moments, *other = moments + (kMeanT - kMeanS) * d;
  if (!of_s) std::swap(own, other);
  for (int64_t j = 0; j < d; j += lanes) {
    C* const to = table.get() + j * kColumnFactors;
    auto read = [&](const C* row) { return load_within<C, C>(row + j, d - j); };
    auto write = [&](int64_t c, Vector<C> x) { store<C, C>(to + c * lanes, x); };
    for (int64_t c = 0; c < 3; ++c) {
      write(kOwnMean + c, read(own + c * d));
      write(kOtherMean + c, read(other + c * d));
    }
    const Vector<C> scale = upstream * read(own + 2 * d);
    write(kOtherFactor, scale * read(moments + kA * d));
    write(kOwnFactor, -scale * read(moments + kB * d));
  }
  return table;
}

// A part of a row: fewer columns than a vector has, a vector, or one that goes past the caches.
enum class Part { some, whole, streamed };

// Columns j, j + 1, … of `row_count` rows from row i. Without a table the correlation loss has no part in the gradient,
// without `dgram` the mutual-information loss has none.
template <class T, class C, int row_count, Part part>
inline void write_gradient(const Matrix& z, const Matrix& w, const C* table, const Matrix& dgram,
                           C g_mutual_information, const Matrix& out, int64_t i, int64_t j, int64_t count) {
  constexpr int64_t lanes = kLanes<C>;
  constexpr bool whole = part != Part::some;
  auto read = [&](const T* from) { return whole ? load<T, C>(from + j) : load_some<T, C>(from + j, count); };
  Vector<C> gradient[row_count] = {};
  if (table) {
    const C* const at = table + j * kColumnFactors;
    Vector<C> k[kColumnFactors];
#pragma GCC unroll 8
    for (int c = 0; c < kColumnFactors; ++c) k[c] = load<C, C>(at + c * lanes);
#pragma GCC unroll 4
    for (int r = 0; r < row_count; ++r) {
      const Vector<C> own = ((read(z.row<T>(i + r)) - k[kOwnMean]) - k[kOwnMeanLow]) * k[kOwnRstd];
      const Vector<C> other = ((read(w.row<T>(i + r)) - k[kOtherMean]) - k[kOtherMeanLow]) * k[kOtherRstd];
      gradient[r] = k[kOwnFactor] * own + k[kOtherFactor] * other;
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < row_count; ++r) {
    if (dgram) {
      const C* const from = dgram.row<C>(i + r) + j;
      gradient[r] += g_mutual_information * (whole ? load<C, C>(from) : load_some<C, C>(from, count));
    }
    T* const to = out.row<T>(i + r) + j;
    if constexpr (part == Part::streamed)
      stream<T, C>(to, gradient[r]);
    else
      whole ? store<T, C>(to, gradient[r]) : store_some<T, C>(to, gradient[r], count);
  }
}

// Rows that share a load of the factors; more of a page's stride evict each other from the L1 cache.
constexpr int64_t kGradientRows = 2;

// From this size on a gradient goes past the caches, which saves reading what it overwrites: it would not stay there.
constexpr int64_t kSmallestStreamed = int64_t(32) << 20;

// Whether the rows of `out` can be streamed, and are worth it.
template <class T, class C>
bool streams(const Matrix& out) {
  constexpr std::size_t vector_bytes = kLanes<C> * sizeof(T);
  const bool aligned =
      reinterpret_cast<std::uintptr_t>(out.data) % vector_bytes == 0 && out.stride * sizeof(T) % vector_bytes == 0;
  return aligned && out.rows * out.columns * int64_t(sizeof(T)) >= kSmallestStreamed;
}

// Rows [begin, end) of the gradient `out`.
template <class T, class C>
void write_rows(const Matrix& z, const Matrix& w, const C* table, const Matrix& dgram, double g_mutual_information,
                const Matrix& out, int64_t begin, int64_t end) {
  constexpr int64_t lanes = kLanes<C>;
  const bool streamed = streams<T, C>(out);
  auto rows = [&](auto count, int64_t i) {
    constexpr int row_count = decltype(count)::value;
    auto columns = [&](auto part, int64_t j, int64_t count) {
      write_gradient<T, C, row_count, decltype(part)::value>(z, w, table, dgram, C(g_mutual_information), out, i, j,
                                                             count);
    };
    int64_t j = 0;
    if (streamed)
      for (; j + lanes <= out.columns; j += lanes) columns(std::integral_constant<Part, Part::streamed>(), j, lanes);
    for (; j + lanes <= out.columns; j += lanes) columns(std::integral_constant<Part, Part::whole>(), j, lanes);
    if (j < out.columns) columns(std::integral_constant<Part, Part::some>(), j, out.columns - j);
  };
  int64_t i = begin;
  for (; i + kGradientRows <= end; i += kGradientRows) rows(std::integral_constant<int, kGradientRows>(), i);
  for (; i < end; ++i) rows(std::integral_constant<int, 1>(), i);
}

template <class T>
void backward(const BackwardProblem& p) {
  using C = Wide<T>;
  const C* moments = static_cast<const C*>(p.moments);
  const int64_t n = p.t.rows, d = p.t.columns;
  Buffer<C> of_e, of_t;
  if (moments && p.grad_e) of_e = column_factors(moments, true, d, C(p.g_correlation));
  if (moments && p.grad_t) of_t = column_factors(moments, false, d, C(p.g_correlation));
  const int threads = n * (p.grad_e.columns + p.grad_t.columns + p.grad_s.columns) < 32768 ? 1 : max_threads();
  // A few rows at a time, so that the second gradient finds its inputs in the cache.
  constexpr int64_t rows = 2 * kGradientRows;
  parallel(threads, [&](int thread) {
    // The same rows go together whatever the number of threads.
    const Range range((n + rows - 1) / rows, thread, threads);
    for (int64_t i = range.begin * rows; i < std::min(range.end * rows, n); i += rows) {
      const int64_t end = std::min(i + rows, n);
      if (p.grad_e) write_rows<T>(p.e, p.t, of_e.get(), p.dgram_e, p.g_mutual_information, p.grad_e, i, end);
      if (p.grad_t) write_rows<T>(p.t, p.e, of_t.get(), p.dgram_t, p.g_mutual_information, p.grad_t, i, end);
      if (p.grad_s)
        write_rows<T>(p.e, p.t, static_cast<C*>(nullptr), p.dgram_s, p.g_mutual_information, p.grad_s, i, end);
    }
    end_of_stream();
  });
}

}  // namespace itrd::ITRD_ISA
