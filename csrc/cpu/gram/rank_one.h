// Sums over all unit rows of one input, which the statistics of a one-sided loss are made of: the row sums of G are
// Σ_j ẑ_i·ẑ_j = ẑ_i·a with a = Σ_j ẑ_j, and what they add to the gradient has rank one.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/gram/rows.h"
#include "cpu/gram/schedule.h"

namespace itrd::ITRD_ISA {

// Calls visit(first row, rows' end, panel) for the panels of n rows, on several threads.
template <class F>
void each_panel(int64_t n, int threads, F&& visit) {
  const int64_t panels = Panels(n).count;
  parallel(threads, [&](int thread) {
    const Range range(panels, thread, threads);
    for (int64_t p = range.begin; p < range.end; ++p) visit(p * kPanel, std::min((p + 1) * kPanel, n), p);
  });
}

// Σ_i w_i ẑ_i; without weights w_i = 1.
template <class T>
std::vector<Wide<T>> weighted_sum(const RowNorms<T>& rows, const std::vector<Wide<T>>* weights, int threads) {
  using C = Wide<T>;
  constexpr int64_t lanes = kLanes<C>;
  const int64_t d = rows.z.columns, panels = Panels(rows.z.rows).count;
  std::vector<C> partial(panels * d);
  each_panel(rows.z.rows, threads, [&](int64_t begin, int64_t end, int64_t p) {
    C* const to = partial.data() + p * d;
    for (int64_t i = begin; i < end; ++i) {
      const C factor = weights ? (*weights)[i] * rows.inverse[i] : rows.inverse[i], power = rows.power[i];
      for (int64_t k = 0; k < d; k += lanes) {
        const Vector<C> x = load_within<T, C>(rows.z.template row<T>(i) + k, d - k) * power * factor;
        store_within<C, C>(to + k, load_within<C, C>(to + k, d - k) + x, d - k);
      }
    }
  });
  std::vector<C> total(d);
  for (int64_t k = 0; k < d; ++k) {
    double sum = 0;
    for (int64_t p = 0; p < panels; ++p) sum += partial[p * d + k];
    total[k] = C(sum);
  }
  return total;
}

// ẑ_i·x of each row.
template <class T>
std::vector<Wide<T>> along(const RowNorms<T>& rows, const std::vector<Wide<T>>& x, int threads) {
  using C = Wide<T>;
  constexpr int64_t lanes = kLanes<C>, section = 4096;
  const int64_t d = rows.z.columns;
  std::vector<C> result(rows.z.rows);
  each_panel(rows.z.rows, threads, [&](int64_t begin, int64_t end, int64_t) {
    for (int64_t i = begin; i < end; ++i) {
      // Sections add up in double, so that a long row keeps its digits.
      double sum = 0;
      for (int64_t from = 0; from < d; from += section) {
        Vector<C> part{};
        for (int64_t k = from; k < std::min(from + section, d); k += lanes)
          part += load_within<T, C>(rows.z.template row<T>(i) + k, d - k) * rows.power[i] *
                  load_within<C, C>(x.data() + k, d - k);
        sum += sum_lanes<C>(part);
      }
      result[i] = C(sum * rows.inverse[i]);
    }
  });
  return result;
}

// Takes P_i(κ_i a + Σ_j κ_j ẑ_j)/‖z_i‖ from row i of `gradient`, P_i g = g − (g·ẑ_i)ẑ_i, given a and ẑ_i·a.
template <class T>
void subtract_rank_one(const RowNorms<T>& rows, const std::vector<Wide<T>>& kappa, const std::vector<Wide<T>>& a,
                       const std::vector<Wide<T>>& along_a, const Matrix& gradient, int threads) {
  using C = Wide<T>;
  constexpr int64_t lanes = kLanes<C>;
  const int64_t d = rows.z.columns;
  const std::vector<C> b = weighted_sum<T>(rows, &kappa, threads), along_b = along<T>(rows, b, threads);
  each_panel(rows.z.rows, threads, [&](int64_t begin, int64_t end, int64_t) {
    for (int64_t i = begin; i < end; ++i) {
      const C inverse = rows.inverse[i], power = rows.power[i], share = (kappa[i] * along_a[i] + along_b[i]) * inverse;
      for (int64_t k = 0; k < d; k += lanes) {
        const Vector<C> z = load_within<T, C>(rows.z.template row<T>(i) + k, d - k) * power;
        const Vector<C> g = kappa[i] * load_within<C, C>(a.data() + k, d - k) + load_within<C, C>(b.data() + k, d - k);
        C* const to = gradient.row<C>(i) + k;
        store_within<C, C>(to, load_within<C, C>(to, d - k) - (g - share * z) * inverse * power, d - k);
      }
    }
  });
}

}  // namespace itrd::ITRD_ISA
