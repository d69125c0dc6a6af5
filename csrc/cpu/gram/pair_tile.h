// A pair loss on one tile of G_s and G_t: its sums, its W, its row sums. The engine (pairs.h) calls it through a
// pointer, so that losses and engines are compiled apart.
#pragma once

#include "cpu/gram/schedule.h"
#include "cpu/simd/load_store.h"
#include "cpu/simd/logarithm.h"
#include "losses/all.h"

namespace itrd::ITRD_ISA {

// Statistics of the rows of a panel, or what they add up to, of student and teacher.
template <class C>
struct PanelStatistics {
  alignas(64) C s[kPanel] = {}, t[kPanel] = {};
};

template <class C>
struct PairTile {
  C *g, *h;  // (32, 32) entries of G_s and G_t, whose places W and W' take
  PanelStatistics<C> rows, columns;
  PairCoefficients<C> c;
  C parameters[kMostParameters];
  bool mirrored;  // whether the tile stands for its mirror image too: its sums are of the pairs seen from both ends
  // Row sums of both; written by one-sided losses alone.
  PanelStatistics<C> row_sums, column_sums;
  double sums[2];
};

// What the pairs of a tile add, seen from their columns, and where the tile is mirrored from their rows too.
template <class Loss, class C>
inline void add_pair_tile(PairTile<C>& tile, bool one_sided) {
  using V = Vector<C>;
  constexpr int64_t lanes = kLanes<C>;
  V first{}, second{};
  tile.row_sums = tile.column_sums = {};
  for (int64_t r = 0; r < kPanel; ++r) {
    V row_s{}, row_t{};
    for (int64_t c = 0; c < kPanel; c += lanes) {
      C *const g = tile.g + r * kPanel + c, *const h = tile.h + r * kPanel + c;
      const V column_s = load<C, C>(tile.columns.s + c), column_t = load<C, C>(tile.columns.t + c);
      PairInput<V> x{load<C, C>(g),
                     load<C, C>(h),
                     broadcast(tile.rows.s[r]),
                     broadcast(tile.rows.t[r]),
                     column_s,
                     column_t,
                     {broadcast(tile.c.first), broadcast(tile.c.second)},
                     {broadcast(tile.parameters[0]), broadcast(tile.parameters[1])}};
      PairTerms<V> terms = Loss::of(x);
      if (!one_sided) {
        first += terms.first;
        second += terms.second;
      } else {
        std::swap(x.own_s, x.other_s);
        std::swap(x.own_t, x.other_t);
        const PairTerms<V> of_columns = Loss::of(x);
        if (tile.mirrored) {
          first += terms.first;
          row_s += terms.row_s;
          row_t += terms.row_t;
        }
        first += of_columns.first;
        store<C, C>(tile.column_sums.s + c, load<C, C>(tile.column_sums.s + c) + of_columns.row_s);
        store<C, C>(tile.column_sums.t + c, load<C, C>(tile.column_sums.t + c) + of_columns.row_t);
        terms.w_s += of_columns.w_s;
        terms.w_t += of_columns.w_t;
      }
      store<C, C>(g, terms.w_s);
      store<C, C>(h, terms.w_t);
    }
    if (one_sided) {
      tile.row_sums.s[r] = sum_lanes<C>(row_s);
      tile.row_sums.t[r] = sum_lanes<C>(row_t);
    }
  }
  const double twice = !one_sided && tile.mirrored ? 2 : 1;
  tile.sums[0] = twice * sum_lanes<C>(first);
  tile.sums[1] = twice * sum_lanes<C>(second);
}

// One loss, for one type of numbers.
template <class C>
struct PairLoss {
  void (*add)(PairTile<C>& tile);
  PairCoefficients<double> (*coefficients)(double m_s, double m_st, const double* parameters);
  // Of one-sided losses: a row's statistic from the sum of its cosines, and κ of rank_one.h; k rows count.
  double (*statistic)(double along, double k) = nullptr;
  double (*kappa)(double statistic, double row_sum, double k) = nullptr;
};

template <class Loss, class C, bool one_sided>
constexpr PairLoss<C> make_pair_loss() {
  PairLoss<C> loss{[](PairTile<C>& tile) { add_pair_tile<Loss>(tile, one_sided); },
                   &Loss::template coefficients<double>};
  if constexpr (one_sided) {
    loss.statistic = &Loss::template statistic<double>;
    loss.kappa = &Loss::template kappa<double>;
  }
  return loss;
}

template <class C>
const PairLoss<C>& pair_loss(PairLossKind kind) {
#define ITRD_PAIR_LOSS(type, name, parameters, one_sided) make_pair_loss<type, C, one_sided>(),
  static constexpr PairLoss<C> losses[] = {ITRD_PAIR_LOSSES(ITRD_PAIR_LOSS)};
#undef ITRD_PAIR_LOSS
  return losses[int(kind)];
}

}  // namespace itrd::ITRD_ISA
