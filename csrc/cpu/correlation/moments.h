// The centred moments of the columns of both inputs, which L_corr is formed from. See docs/design/cpu-engines.md.
#pragma once

#include <algorithm>

#include "cpu/buffer.h"
#include "cpu/simd/load_store.h"

namespace itrd::ITRD_ISA {

// Five centred moments of a set of rows, each an array with a number for each of `columns` columns; the arrays lie one
// after the other. With deviations from the means of these rows: Σ(s − μ_s)², Σ(t − μ_t)² and Σ(s − μ_s)(t − μ_t).
template <class C>
struct ColumnMoments {
  C *mean_s, *mean_t, *square_s, *square_t, *product;
  ColumnMoments(C* data, int64_t columns)
      : mean_s(data),
        mean_t(data + columns),
        square_s(data + 2 * columns),
        square_t(data + 3 * columns),
        product(data + 4 * columns) {}
};

constexpr int64_t kGroupRows = 8;      // rows whose moments are formed in registers
constexpr int64_t kSectionRows = 256;  // rows whose groups are merged in Wide<T>; sections are merged in double

// Merges the moments s … st of `add` rows into those of `have` rows (Chan), both of the same columns.
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

// Rows of both inputs, `stride` elements apart, and the row that is subtracted from each of them. That one is near the
// column's mean as a rule, so that a small deviation from a large mean keeps its digits, and a dead column is zero
// exactly.
template <class T>
struct ShiftedRows {
  const T *s, *t, *base_s, *base_t;
  int64_t stride_s, stride_t;
};

// Moments of up to kGroupRows rows of one vector of columns j, j + 1, …, merged into those of the `have` rows before.
template <class T, class C, bool whole>
inline void add_group(const ShiftedRows<T>& from, int64_t rows, int64_t have, ColumnMoments<C> to, int64_t j,
                      int64_t count) {
  using V = Vector<C>;
  auto read = [&](const T* z) { return whole ? load<T, C>(z + j) : load_some<T, C>(z + j, count); };
  const V base_s = read(from.base_s), base_t = read(from.base_t);
  V x[kGroupRows] = {}, y[kGroupRows] = {}, mean_s{}, mean_t{}, ss{}, tt{}, st{};
#pragma GCC unroll 8
  for (int64_t r = 0; r < kGroupRows; ++r) {
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
  for (int64_t r = 0; r < kGroupRows; ++r) {
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

// Moments of rows [begin, end) of columns [first, first + columns), added to those in `result`, which are of no rows.
template <class T>
void chunk_moments(const Matrix& s, const Matrix& t, int64_t begin, int64_t end, int64_t first, int64_t columns,
                   double* result) {
  using C = Wide<T>;
  constexpr int64_t lanes = kLanes<C>;
  const int64_t padded = (columns + lanes - 1) / lanes * lanes;
  const Buffer<C> state = allocate<C>(5 * padded);
  const ColumnMoments<C> section(state.get(), padded);
  ColumnMoments<double> all(result, columns);
  for (int64_t top = begin; top < end; top += kSectionRows) {
    const int64_t bottom = top + kSectionRows < end ? top + kSectionRows : end;
    std::fill_n(state.get(), 5 * padded, C(0));
    ShiftedRows<T> at{nullptr, nullptr, s.row<T>(top) + first, t.row<T>(top) + first, s.stride, t.stride};
    // Rows of a page's stride evict each other from the L1 cache.
    const int64_t group = s.stride * sizeof(T) % 4096 == 0 ? kGroupRows / 2 : kGroupRows;
    for (int64_t i = top; i < bottom; i += group) {
      at.s = s.row<T>(i) + first;
      at.t = t.row<T>(i) + first;
      const int64_t rows = std::min(group, bottom - i), whole = columns / lanes * lanes;
      if (rows == kGroupRows) {
        for (int64_t j = 0; j < whole; j += lanes) add_group<T, C, true>(at, kGroupRows, i - top, section, j, lanes);
      } else if (rows == kGroupRows / 2) {
        for (int64_t j = 0; j < whole; j += lanes)
          add_group<T, C, true>(at, kGroupRows / 2, i - top, section, j, lanes);
      } else {
        for (int64_t j = 0; j < whole; j += lanes) add_group<T, C, true>(at, rows, i - top, section, j, lanes);
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

}  // namespace itrd::ITRD_ISA
