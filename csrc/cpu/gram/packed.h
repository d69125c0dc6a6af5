// The Gram engine for any inputs: G = ẑẑᵀ of packed rows, W of the loss, and the gradients 4Wẑ, projected. No more of
// W than a block of kBlockRows × kBlockRows is there at a time. See docs/design/cpu-engines.md.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/gram/packed_operand.h"
#include "cpu/gram/schedule.h"
#include "cpu/gram/sweep.h"

namespace itrd::ITRD_ISA {

// W of a block for one of the two gradients: once [column panel][row][32] and, transposed, [row panel][column][32],
// which on the diagonal are the same. Null where that gradient is not wanted, `by_row` also where all of W is one
// block. A lane with a pair of numbers holds two rows k, times the factor between what is packed and ẑ_k.
template <class T>
struct Weights {
  static constexpr int64_t kTileEntries = kPanel * kPanel / kPerLane<T>;
  Lane<T>*by_column = nullptr, *by_row = nullptr;
  Lane<T>* tile(const Block& block, const PanelPair& pair) const {
    return by_column + ((pair.column - block.column_begin) * block.rows() + pair.row - block.row_begin) * kTileEntries;
  }
  Lane<T>* transposed_tile(const Block& block, const PanelPair& pair) const {
    Lane<T>* const data = block.diagonal() ? by_column : by_row;
    return data + ((pair.row - block.row_begin) * block.columns() + pair.column - block.column_begin) * kTileEntries;
  }
};

template <class T>
class PackedGram : public GramPlan {
  using C = Wide<T>;
  static constexpr int64_t kTaskPanels = 4;      // panels of a task of Wẑ, whose part of W stays in the L2 cache
  static constexpr int64_t kFeatureChunk = 256;  // lanes of features of a group of pairs that are multiplied at a time

  // One input: what it is packed to and, where its gradient is wanted, W and Wẑ, the latter [panel][feature][32 rows].
  struct Side {
    PackedOperand<T> packed;
    Buffer<Lane<T>> memory;
    Weights<T> weights;
    Buffer<C> gradient;

    Side(const Matrix& z, bool wanted, const Panels& panels) : packed(z) {
      const int64_t size = packed.size(),
                    tiles = wanted ? panels.per_block * panels.per_block * Weights<T>::kTileEntries : 0;
      const int64_t copies = wanted ? kPerLane<T> : 1, layouts = std::min<int64_t>(panels.blocks, 2);
      memory = allocate<Lane<T>>(copies * size + layouts * tiles);
      packed.values = memory.get();
      if (!wanted) return;
      packed.row_pairs = packed.values + (copies - 1) * size;
      weights.by_column = packed.values + copies * size;
      if (layouts > 1) weights.by_row = weights.by_column + tiles;
      gradient = allocate<C>(size * kPerLane<T>);
    }

    C* gradient_panel(int64_t p) const { return gradient.get() + p * packed.features * kPanel; }
  };

  Side s_, t_;
  Buffer<C> tiles_;  // of each thread: tiles of G_s and G_t, in turn, of the pairs of one group

 public:
  static constexpr int64_t kGroupSide = 8;  // panels on a side of a group of pairs, whose features stay in the L2 cache

  explicit PackedGram(const GramProblem& problem)
      : GramPlan(problem),
        s_(problem.s, bool(problem.dgram_s), panels),
        t_(problem.t, bool(problem.dgram_t), panels),
        tiles_(allocate<C>(threads * tiles_size())) {}

  const RowNorms<T>& norms_s() const { return s_.packed; }
  const RowNorms<T>& norms_t() const { return t_.packed; }

  // Packs the rows of both inputs.
  void prepare() {
    parallel(threads, [&](int thread) {
      const Range range(2 * panels.count, thread, threads);
      for (int64_t i = range.begin; i < range.end; ++i) (i < panels.count ? s_ : t_).packed.pack(i % panels.count);
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
      products(s_.packed, pairs, begin, end, tiles);
      products(t_.packed, pairs, begin, end, tiles + kPanel * kPanel);
      for (int64_t i = begin; i < end; ++i)
        partial[i] = epilogue(block, pairs[i], tiles + 2 * (i - begin) * kPanel * kPanel, gradient, c);
    }
  }

  // Adds what the block of W contributes to Wẑ.
  void multiply_weights(const Block& block) {
    if (problem.dgram_s) multiply_weights(block, s_);
    if (problem.dgram_t) multiply_weights(block, t_);
  }

 private:
  // The gradients from Wẑ.
  void finish() {
    auto one = [&](Side& side, const Matrix& result) {
      if (!result) return;
      parallel(threads, [&](int thread) {
        const Range range(panels.count, thread, threads);
        for (int64_t p = range.begin; p < range.end; ++p) side.packed.unpack(p, side.gradient_panel(p), result);
      });
    };
    // What one side no longer needs is given back before the other is unpacked.
    if (!problem.dgram_t) t_.memory.reset();
    one(s_, problem.dgram_s);
    s_.memory.reset();
    s_.gradient.reset();
    one(t_, problem.dgram_t);
  }

  int64_t tiles_size() const {
    return 2 * std::min(kGroupSide * kGroupSide, panels.count * panels.count) * kPanel * kPanel;
  }

  // G of what is packed, of pairs [begin, end), into every second tile.
  static void products(const PackedOperand<T>& packed, const std::vector<PanelPair>& pairs, int64_t begin, int64_t end,
                       C* tiles) {
    constexpr int64_t half = kPanel / 2;
    const int64_t lanes = packed.features / kPerLane<T>;
    for (int64_t k = 0; k < lanes; k += kFeatureChunk)
      for (int64_t i = begin; i < end; ++i) {
        const int64_t count = std::min(kFeatureChunk, lanes - k);
        const Lane<T>* const rows = packed.panel(pairs[i].row) + k * kPanel;
        const Lane<T>* const columns = packed.panel(pairs[i].column) + k * kPanel;
        C* const tile = tiles + 2 * (i - begin) * kPanel * kPanel;
        // On the diagonal a quarter of the tile repeats another.
        const int64_t whole = pairs[i].row == pairs[i].column ? half : kPanel;
        for (int64_t r = 0; r < whole; r += kRegisterRows)
          multiply<C, 1, kPanel>(rows + r, columns, count, Accumulate<C>{tile + r * kPanel, k > 0});
        for (int64_t r = whole; r < kPanel; r += kRegisterRows)
          multiply<C, 1, kPanel, half>(rows + r, columns + half, count, Accumulate<C>{tile + r * kPanel + half, k > 0});
        if (whole == half && k + count == lanes) transpose_tile<half>(tile + half, tile + half * kPanel);
      }
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
    if (want_s) keep(s_, block, pair, g_s);
    if (want_t) keep(t_, block, pair, g_t);
    const double twice = diagonal ? 1 : 2;
    return {twice * sum_lanes<C>(sum_s), twice * sum_lanes<C>(sum_st)};
  }

  // Keeps a pair's W for its columns and, transposed, for its rows.
  static void keep(const Side& side, const Block& block, const PanelPair& pair, const C* w) {
    store_weights(w, side.packed, pair.row, side.weights.tile(block, pair));
    if (pair.row == pair.column) return;
    alignas(64) C transposed[kPanel * kPanel];
    transpose_tile(w, transposed);
    store_weights(transposed, side.packed, pair.column, side.weights.transposed_tile(block, pair));
  }

  // Rows k of a tile of W, which are those of panel p.
  static void store_weights(const C* w, const PackedOperand<T>& packed, int64_t p, Lane<T>* to) {
    constexpr int64_t lanes = kLanes<C>;
    if constexpr (kPerLane<T> == 1) {
      std::copy_n(w, kPanel * kPanel, to);
    } else {
      for (int64_t k = 0; k < kPanel; k += 2, w += 2 * kPanel)
        for (int64_t i = 0; i < kPanel; i += lanes, to += lanes)
          store<Lane<T>, Lane<T>>(to, join(load<C, C>(w + i) * packed.unit_of(p * kPanel + k),
                                           load<C, C>(w + kPanel + i) * packed.unit_of(p * kPanel + k + 1)));
    }
  }

  // Wẑ of the block's columns and, off the diagonal, Wᵀẑ of its rows.
  void multiply_weights(const Block& block, Side& side) const {
    const int64_t steps = side.packed.features / kFeatureStep;
    auto groups = [](int64_t panels) { return (panels + kTaskPanels - 1) / kTaskPanels; };
    const int64_t column_tasks = groups(block.columns()) * steps;
    const int64_t row_tasks = block.diagonal() ? 0 : groups(block.rows()) * steps;
    parallel(threads, [&](int thread) {
      const Range range(column_tasks + row_tasks, thread, threads);
      for (int64_t task = range.begin; task < range.end; ++task) {
        const bool columns = task < column_tasks;
        const int64_t local = columns ? task : task - column_tasks, group = local / steps, step = local % steps;
        if (columns)
          accumulate(side, side.weights.by_column, block.column_begin, block.column_end, group, block.row_begin,
                     block.row_end, step, block.row_begin == 0);
        else
          accumulate(side, side.weights.by_row, block.row_begin, block.row_end, group, block.column_begin,
                     block.column_end, step, false);
      }
    });
  }

  // For the panels of `group` in [to_begin, to_end), and the features of `step`:
  //   gradient[feature][32] = or += Σ_k ẑ[feature][k] W[k][32]   over rows k of panels [from, from_end)
  static void accumulate(Side& side, const Lane<T>* weights, int64_t to_begin, int64_t to_end, int64_t group,
                         int64_t from, int64_t from_end, int64_t step, bool first) {
    constexpr int64_t row_lanes = kPanel / kPerLane<T>;  // lanes of a feature
    const int64_t size = side.packed.panel_size(), offset = step * kFeatureStep;
    const int64_t begin = to_begin + group * kTaskPanels, end = std::min(begin + kTaskPanels, to_end);
    for (int64_t p = begin; p < end; ++p) {
      const Lane<T>* const w = weights + (p - to_begin) * (from_end - from) * Weights<T>::kTileEntries;
      C* const out = side.gradient_panel(p) + offset * kPanel;
      for (int64_t r = 0; r < kFeatureStep; r += kRegisterRows)
        multiply<C, row_lanes, 1>(side.packed.row_pairs_panel(from) + (offset + r) * row_lanes, w, row_lanes,
                                  Accumulate<C>{out + r * kPanel, !first}, from_end - from, size);
    }
  }
};

}  // namespace itrd::ITRD_ISA
