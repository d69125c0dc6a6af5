// The Gram engine for any inputs: G = ẑẑᵀ of packed rows, W of the loss, and the gradients 4Wẑ, projected. No more of
// W than a block of kBlockRows × kBlockRows is there at a time. See docs/design/cpu-engines.md.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/gram/packed_side.h"
#include "cpu/gram/sweep.h"

namespace itrd::ITRD_ISA {

template <class T>
class PackedGram : public GramPlan {
  using C = Wide<T>;
  PackedSide<T> s_, t_;
  Buffer<C> tiles_;  // of each thread: tiles of G_s and G_t, in turn, of the pairs of one group

 public:
  static constexpr int64_t kGroupSide = 8;  // panels on a side of a group of pairs, whose features stay in the L2 cache

  explicit PackedGram(const GramProblem& problem)
      : GramPlan(problem),
        s_(problem.s, {}, bool(problem.dgram_s), schedule),
        t_(problem.t, {}, bool(problem.dgram_t), schedule),
        tiles_(allocate<C>(threads * tiles_size())) {}

  const RowNorms<T>& norms_s() const { return s_.packed; }
  const RowNorms<T>& norms_t() const { return t_.packed; }

  // Packs the rows of both inputs.
  void prepare() {
    parallel(threads, [&](int thread) {
      const Range range(2 * panels.count, thread, threads);
      for (int64_t i = range.begin; i < range.end; ++i) (i < panels.count ? s_ : t_).pack(i % panels.count);
    });
  }

  Sums sweep(bool gradient, Coefficients c) {
    const Sums sums = sweep_blocks(*this, gradient, c);
    if (gradient) finish();
    return sums;
  }

  // Sums of the pairs in `range` and, with `gradient`, their W.
  void form_weights(const Block& block, const std::vector<PanelPair>& pairs, const Range& range, bool gradient,
                    Coefficients c, std::vector<Sums>& partial, int thread) const {
    C* const tiles = tiles_.get() + thread * tiles_size();
    for (int64_t begin = range.begin, end; begin < range.end; begin = end) {
      for (end = begin; end < range.end && pairs[end].group == pairs[begin].group;) ++end;
      s_.products(pairs, begin, end, tiles);
      t_.products(pairs, begin, end, tiles + kPanel * kPanel);
      for (int64_t i = begin; i < end; ++i)
        partial[i] = epilogue(block, pairs[i], tiles + 2 * (i - begin) * kPanel * kPanel, gradient, c);
    }
  }

  // Adds what the block of W contributes to Wẑ.
  void multiply_weights(const Block& block) {
    if (problem.dgram_s) s_.multiply_weights(block, threads);
    if (problem.dgram_t) t_.multiply_weights(block, threads);
  }

 private:
  // The gradients from Wẑ.
  void finish() {
    // What one side no longer needs is given back before the other is unpacked.
    if (!problem.dgram_t) t_.give_back();
    if (problem.dgram_s) s_.unpack(problem.dgram_s, threads);
    s_.give_back();
    if (problem.dgram_t) t_.unpack(problem.dgram_t, threads);
  }

  int64_t tiles_size() const {
    return 2 * std::min(kGroupSide * kGroupSide, panels.count * panels.count) * kPanel * kPanel;
  }

  // Sums of a pair's two tiles and, with `gradient`, its W and W', which take their places.
  Sums epilogue(const Block& block, const PanelPair& pair, C* tiles, bool gradient, Coefficients c) const {
    constexpr int64_t lanes = kLanes<C>;
    C *const g_s = tiles, *const g_t = tiles + kPanel * kPanel;
    const bool diagonal = pair.row == pair.column;
    // W_ii ẑ_i is parallel to ẑ_i, which the projection removes; the diagonal's part of the sums is in the traces.
    if (diagonal)
      for (int64_t i = 0; i < kPanel; ++i) g_s[i * (kPanel + 1)] = g_t[i * (kPanel + 1)] = 0;
    const bool want_s = gradient && problem.dgram_s, want_t = gradient && problem.dgram_t;
    const Vector<C> c_s = broadcast(C(c.s)), c_st = broadcast(C(c.st));
    Vector<C> sum_s{}, sum_st{};
    for (int64_t i = 0; i < kPanel * kPanel; i += lanes) {
      Vector<C> of_s, of_t;
      auto entries = [&](const PackedOperand<T>& z, const C* g) {
        const int64_t row = pair.row * kPanel + i / kPanel, column = pair.column * kPanel + i % kPanel;
        return load<C, C>(g + i) * z.unit_of(row) * z.unit(column);
      };
      mutual_information(entries(s_.packed, g_s), entries(t_.packed, g_t), c_s, c_st, sum_s, sum_st, of_s, of_t);
      if (want_s) store<C, C>(g_s + i, of_s);
      if (want_t) store<C, C>(g_t + i, of_t);
    }
    if (want_s) s_.keep(block, pair, g_s);
    if (want_t) t_.keep(block, pair, g_t);
    const double twice = diagonal ? 1 : 2;
    return {twice * sum_lanes<C>(sum_s), twice * sum_lanes<C>(sum_st)};
  }
};

}  // namespace itrd::ITRD_ISA
