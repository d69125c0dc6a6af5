// The packed Gram engine for any pair loss, in one sweep: over the triangle of all pairs of rows, or over a rectangle
// of own rows × other rows. W's columns are the own rows, its rows the other ones.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/gram/packed_side.h"
#include "cpu/gram/pair_tile.h"
#include "cpu/gram/rank_one.h"
#include "cpu/gram/sweep.h"

namespace itrd::ITRD_ISA {

template <class T>
class PairGram {
  using C = Wide<T>;
  static constexpr int64_t kGroupSide = 8;  // panels on a side of a group of pairs, whose features stay in the L2 cache

  // A copy of z with zeros in the rows that do not count, which need not be numbers; z itself where all of them do.
  struct KeptRows {
    Buffer<T> copy;
    Matrix z;
    KeptRows(const Matrix& all, const bool* keep) : z(all) {
      if (keep == nullptr || !all) return;
      copy = allocate<T>(all.rows * all.columns);
      z = {copy.get(), all.rows, all.columns, all.columns};
      for (int64_t i = 0; i < all.rows; ++i) {
        if (keep[i])
          std::copy_n(all.row<T>(i), all.columns, z.row<T>(i));
        else
          std::fill_n(z.row<T>(i), all.columns, T{});
      }
    }
  };

  const PairProblem& problem_;
  const PairLoss<C>& loss_;
  const bool one_sided_, rectangle_, gradient_;
  const bool own_statistics_;  // whether the statistics are those of these rows, and not given
  const Schedule schedule_;
  const int threads_;
  KeptRows kept_s_, kept_t_, other_s_, other_t_;
  PackedSide<T> s_, t_;
  std::vector<PanelStatistics<C>> statistics_, other_statistics_;  // of each panel of own and of other rows
  std::vector<PanelStatistics<double>> row_sums_;                  // of each panel of own rows
  Buffer<C> tiles_;  // of each thread: tiles of G_s and G_t, in turn, of the pairs of one group
  PairCoefficients<C> c_;
  // Where the statistics are of these rows: how many count, Σ_j ẑ_j of student and teacher, and ẑ_i·Σ_j ẑ_j.
  double count_ = 0;
  std::vector<C> total_s_, total_t_, along_s_, along_t_;

 public:
  explicit PairGram(const PairProblem& p)
      : problem_(p),
        loss_(pair_loss<C>(p.loss)),
        one_sided_(kPairLosses[int(p.loss)].one_sided),
        rectangle_(p.other_s),
        gradient_(p.dgram_s || p.dgram_t),
        own_statistics_(one_sided_ && !p.statistics),
        schedule_(rectangle_ ? Schedule(p.other_s.rows, p.s.rows) : Schedule(p.s.rows)),
        threads_(work() >= kWorthThreads ? max_threads() : 1),
        kept_s_(p.s, p.keep),
        kept_t_(p.t, p.keep),
        other_s_(p.other_s, p.other_keep),
        other_t_(p.other_t, p.other_keep),
        s_(kept_s_.z, other_s_.z, bool(p.dgram_s), schedule_),
        t_(kept_t_.z, other_t_.z, bool(p.dgram_t), schedule_),
        statistics_(schedule_.columns.count),
        other_statistics_(rectangle_ ? schedule_.rows.count : 0),
        row_sums_(schedule_.columns.count),
        tiles_(allocate<C>(threads_ * tiles_size())) {}

  // Writes the sums {first, second, m_s, m_st}, and with gradients dgram_s, dgram_t and the row sums.
  void run(double* sums) {
    parallel(threads_, [&](int thread) {
      const Range range(s_.panels_to_pack(), thread, threads_);
      for (int64_t i = range.begin; i < range.end; ++i) s_.pack(i), t_.pack(i);
    });
    if (own_statistics_)
      take_statistics();
    else
      read_statistics(s_.packed, t_.packed, problem_.statistics, problem_.keep, statistics_);
    if (rectangle_)
      read_statistics(s_.rows(), t_.rows(), problem_.other_statistics, problem_.other_keep, other_statistics_);
    sums[0] = sums[1] = sums[2] = sums[3] = 0;
    for (int64_t i = 0; i < s_.rows().z.rows; ++i) {
      sums[2] += s_.rows().alive(i);
      sums[3] += s_.rows().alive(i) && t_.rows().alive(i);
    }
    choose_coefficients(sums[2], sums[3]);
    schedule_.each_block([&](const Block& block) { sweep(block, sums); });
    if (problem_.dgram_s) s_.unpack(problem_.dgram_s, threads_);
    if (problem_.dgram_t) t_.unpack(problem_.dgram_t, threads_);
    if (problem_.row_sums) write_row_sums();
    if (own_statistics_ && gradient_) repair();
  }

 private:
  double work() const {
    return 1.0 * problem_.s.rows * (rectangle_ ? problem_.other_s.rows : problem_.s.rows) *
           (problem_.s.columns + problem_.t.columns);
  }
  int64_t tiles_size() const {
    return 2 * std::min(kGroupSide * kGroupSide, schedule_.rows.count * schedule_.columns.count) * kPanel * kPanel;
  }

  // What is given, else 1 for a row that is not zero; 0 where a row does not count.
  static void read_statistics(const RowNorms<T>& s, const RowNorms<T>& t, const void* given, const bool* keep,
                              std::vector<PanelStatistics<C>>& panels) {
    const int64_t n = s.z.rows;
    const C* const from = static_cast<const C*>(given);
    for (int64_t i = 0; i < n; ++i) {
      PanelStatistics<C>& to = panels[i / kPanel];
      const bool counts = keep == nullptr || keep[i];
      to.s[i % kPanel] = !counts ? 0 : from ? from[i] : s.alive(i);
      to.t[i % kPanel] = !counts ? 0 : from ? from[n + i] : t.alive(i);
    }
  }

  // Statistics of a triangle's own rows.
  void take_statistics() {
    const int64_t n = problem_.s.rows;
    auto counts = [&](int64_t i) { return problem_.keep == nullptr || problem_.keep[i]; };
    count_ = 0;
    for (int64_t i = 0; i < n; ++i) count_ += counts(i);
    total_s_ = weighted_sum<T>(s_.packed, nullptr, threads_);
    total_t_ = weighted_sum<T>(t_.packed, nullptr, threads_);
    along_s_ = along<T>(s_.packed, total_s_, threads_);
    along_t_ = along<T>(t_.packed, total_t_, threads_);
    for (int64_t i = 0; i < n; ++i) {
      if (!counts(i)) continue;
      statistics_[i / kPanel].s[i % kPanel] = C(loss_.statistic(along_s_[i], count_));
      statistics_[i / kPanel].t[i % kPanel] = C(loss_.statistic(along_t_[i], count_));
    }
  }

  // What those statistics add to the gradients.
  void repair() const {
    auto one = [&](const PackedSide<T>& side, auto member, auto member_of_sums, const std::vector<C>& total,
                   const std::vector<C>& along_total, const Matrix& gradient) {
      if (!gradient) return;
      std::vector<C> kappa(gradient.rows);
      for (int64_t i = 0; i < gradient.rows; ++i)
        kappa[i] = C(loss_.kappa((statistics_[i / kPanel].*member)[i % kPanel],
                                 (row_sums_[i / kPanel].*member_of_sums)[i % kPanel], count_));
      subtract_rank_one<T>(side.packed, kappa, total, along_total, gradient, threads_);
    };
    one(s_, &PanelStatistics<C>::s, &PanelStatistics<double>::s, total_s_, along_s_, problem_.dgram_s);
    one(t_, &PanelStatistics<C>::t, &PanelStatistics<double>::t, total_t_, along_t_, problem_.dgram_t);
  }

  void choose_coefficients(double m_s, double m_st) {
    const PairCoefficients<double> own = loss_.coefficients(m_s, m_st, problem_.parameters);
    const C* const given = static_cast<const C*>(problem_.coefficients);
    c_ = given ? PairCoefficients<C>{given[0], given[1]} : PairCoefficients<C>{C(own.first), C(own.second)};
  }

  // What a pair of panels adds to the sums.
  struct Partial {
    double sums[2];
    PanelStatistics<C> rows, columns;
  };

  // Adds a block's pairs to the sums, and its part of Wẑ.
  void sweep(const Block& block, double* sums) {
    const std::vector<PanelPair> pairs = pairs_of(block, kGroupSide);
    std::vector<Partial> partial(pairs.size());
    parallel(threads_, [&](int thread) {
      const Range range(pairs.size(), thread, threads_);
      C* const tiles = tiles_.get() + thread * tiles_size();
      for (int64_t begin = range.begin, end; begin < range.end; begin = end) {
        for (end = begin; end < range.end && pairs[end].group == pairs[begin].group;) ++end;
        s_.products(pairs, begin, end, tiles);
        t_.products(pairs, begin, end, tiles + kPanel * kPanel);
        for (int64_t i = begin; i < end; ++i)
          partial[i] = epilogue(block, pairs[i], tiles + 2 * (i - begin) * kPanel * kPanel);
      }
    });
    // In this order whatever the number of threads.
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      sums[0] += partial[i].sums[0];
      sums[1] += partial[i].sums[1];
      if (!one_sided_ || !gradient_) continue;
      auto add = [](PanelStatistics<double>& to, const PanelStatistics<C>& from) {
        for (int64_t r = 0; r < kPanel; ++r) to.s[r] += from.s[r], to.t[r] += from.t[r];
      };
      if (!rectangle_) add(row_sums_[pairs[i].row], partial[i].rows);
      add(row_sums_[pairs[i].column], partial[i].columns);
    }
    if (problem_.dgram_s) s_.multiply_weights(block, threads_);
    if (problem_.dgram_t) t_.multiply_weights(block, threads_);
  }

  // Sums of a pair's two tiles and, with a gradient, its W and W', which take their places.
  Partial epilogue(const Block& block, const PanelPair& pair, C* tiles) const {
    PairTile<C> tile;
    tile.g = tiles;
    tile.h = tiles + kPanel * kPanel;
    tile.rows = (rectangle_ ? other_statistics_ : statistics_)[pair.row];
    tile.columns = statistics_[pair.column];
    tile.c = c_;
    for (int i = 0; i < kMostParameters; ++i) tile.parameters[i] = C(problem_.parameters[i]);
    // A rectangle's own rows are its columns. On the diagonal of a triangle a tile has both (i, j) and (j, i).
    tile.mirrored = !rectangle_ && pair.row != pair.column;
    normalise(s_, pair, tile.g);
    normalise(t_, pair, tile.h);
    // The cosine of a row with itself is 1, or 0 of a zero row.
    each_on_diagonal(pair, [&](int64_t column, int64_t at) {
      tile.g[at] = s_.packed.alive(column);
      tile.h[at] = t_.packed.alive(column);
    });
    loss_.add(tile);
    // W_ii ẑ_i is parallel to ẑ_i, which the projection removes.
    each_on_diagonal(pair, [&](int64_t, int64_t at) { tile.g[at] = tile.h[at] = 0; });
    if (problem_.dgram_s) s_.keep(block, pair, tile.g);
    if (problem_.dgram_t) t_.keep(block, pair, tile.h);
    return {{tile.sums[0], tile.sums[1]}, tile.row_sums, tile.column_sums};
  }

  // Entries of what is packed become cosines.
  static void normalise(const PackedSide<T>& side, const PanelPair& pair, C* g) {
    if constexpr (PackedOperand<T>::kPairs)
      for (int64_t i = 0; i < kPanel * kPanel; i += kLanes<C>)
        store<C, C>(g + i, load<C, C>(g + i) * side.rows().unit_of(pair.row * kPanel + i / kPanel) *
                               side.packed.unit(pair.column * kPanel + i % kPanel));
  }

  // Calls visit(own row, place in the tile) for each pair of a row with itself.
  template <class F>
  void each_on_diagonal(const PanelPair& pair, F&& visit) const {
    const int64_t offset = rectangle_ ? problem_.offset : 0;
    for (int64_t c = 0; c < kPanel; ++c) {
      const int64_t column = pair.column * kPanel + c, r = column + offset - pair.row * kPanel;
      if (column < problem_.s.rows && r >= 0 && r < kPanel) visit(column, r * kPanel + c);
    }
  }

  void write_row_sums() const {
    C* const to = static_cast<C*>(problem_.row_sums);
    for (int64_t i = 0; i < problem_.s.rows; ++i) {
      to[i] = C(row_sums_[i / kPanel].s[i % kPanel]);
      to[problem_.s.rows + i] = C(row_sums_[i / kPanel].t[i % kPanel]);
    }
  }
};

}  // namespace itrd::ITRD_ISA
