// One input of the packed Gram engines: its rows packed, the tiles of W of a block, and Wẑ. What the engines differ in,
// how W comes from the tiles of G, is theirs (packed.h, pairs.h).
#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include "cpu/gram/packed_operand.h"
#include "cpu/gram/schedule.h"

namespace itrd::ITRD_ISA {

// W of a block for one of the two gradients: once [column panel][row][32] and, transposed, [row panel][column][32],
// which on the diagonal are the same. Null where that gradient is not wanted, `by_row` also where all of W is one
// block, and in a rectangle. A lane with a pair of numbers holds two rows k, times the factor between what is packed
// and ẑ_k.
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
class PackedSide {
  using C = Wide<T>;
  static constexpr int64_t kTaskPanels = 4;      // panels of a task of Wẑ, whose part of W stays in the L2 cache
  static constexpr int64_t kFeatureChunk = 256;  // lanes of features of a group of pairs that are multiplied at a time

  std::optional<PackedOperand<T>> other_;  // the rows of a rectangle's W, which are not those of its columns
  Buffer<Lane<T>> memory_;
  Weights<T> weights_;
  Buffer<C> gradient_;  // Wẑ where it is wanted, [panel][feature][32 rows]

 public:
  PackedOperand<T> packed;  // the columns of W, whose gradient it is

  PackedSide(const Matrix& z, const Matrix& other, bool wanted, const Schedule& schedule) : packed(z) {
    if (other) other_.emplace(other);
    const int64_t size = packed.size(), other_size = other_ ? other_->size() : 0;
    const int64_t tiles = wanted ? schedule.rows.per_block * schedule.columns.per_block * Weights<T>::kTileEntries : 0;
    const int64_t copies = wanted ? kPerLane<T> : 1,
                  layouts = schedule.triangle ? std::min<int64_t>(schedule.rows.blocks, 2) : 1;
    memory_ = allocate<Lane<T>>(copies * (size + other_size) + layouts * tiles);
    packed.values = memory_.get();
    if (other_) other_->values = packed.values + copies * size;
    if (!wanted) return;
    packed.row_pairs = packed.values + (copies - 1) * size;
    if (other_) other_->row_pairs = other_->values + (copies - 1) * other_size;
    weights_.by_column = packed.values + copies * (size + other_size);
    if (layouts > 1) weights_.by_row = weights_.by_column + tiles;
    gradient_ = allocate<C>(size * kPerLane<T>);
  }

  const PackedOperand<T>& rows() const { return other_ ? *other_ : packed; }

  // Packs panel i of the columns, or behind them of a rectangle's rows.
  int64_t panels_to_pack() const { return packed.panels + (other_ ? other_->panels : 0); }
  void pack(int64_t i) { i < packed.panels ? packed.pack(i) : other_->pack(i - packed.panels); }

  // The gradient from Wẑ.
  void unpack(const Matrix& result, int threads) const {
    parallel(threads, [&](int thread) {
      const Range range(packed.panels, thread, threads);
      for (int64_t p = range.begin; p < range.end; ++p) packed.unpack(p, gradient_panel(p), result);
    });
  }

  // Gives back what only Wẑ needed.
  void give_back() {
    memory_.reset();
    gradient_.reset();
  }

  // G of what is packed, of pairs [begin, end), into every second tile.
  void products(const std::vector<PanelPair>& pairs, int64_t begin, int64_t end, C* tiles) const {
    constexpr int64_t half = kPanel / 2;
    const PackedOperand<T>& other = rows();
    const int64_t lanes = packed.features / kPerLane<T>;
    for (int64_t k = 0; k < lanes; k += kFeatureChunk)
      for (int64_t i = begin; i < end; ++i) {
        const int64_t count = std::min(kFeatureChunk, lanes - k);
        const Lane<T>* const rows = other.panel(pairs[i].row) + k * kPanel;
        const Lane<T>* const columns = packed.panel(pairs[i].column) + k * kPanel;
        C* const tile = tiles + 2 * (i - begin) * kPanel * kPanel;
        // On the diagonal a quarter of the tile repeats another.
        const int64_t whole = rows == columns ? half : kPanel;
        for (int64_t r = 0; r < whole; r += kRegisterRows)
          multiply<C, 1, kPanel>(rows + r, columns, count, Accumulate<C>{tile + r * kPanel, k > 0});
        for (int64_t r = whole; r < kPanel; r += kRegisterRows)
          multiply<C, 1, kPanel, half>(rows + r, columns + half, count, Accumulate<C>{tile + r * kPanel + half, k > 0});
        if (whole == half && k + count == lanes) transpose_tile<half>(tile + half, tile + half * kPanel);
      }
  }

  // Keeps a pair's W for its columns and, but in a rectangle, transposed for its rows.
  void keep(const Block& block, const PanelPair& pair, const C* w) const {
    store_weights(w, rows(), pair.row, weights_.tile(block, pair));
    if (block.rectangle || pair.row == pair.column) return;
    alignas(64) C transposed[kPanel * kPanel];
    transpose_tile(w, transposed);
    store_weights(transposed, packed, pair.column, weights_.transposed_tile(block, pair));
  }

  // Adds Wẑ of the block's columns and, off the diagonal of a triangle, Wᵀẑ of its rows.
  void multiply_weights(const Block& block, int threads) const {
    const int64_t steps = packed.features / kFeatureStep;
    auto groups = [](int64_t panels) { return (panels + kTaskPanels - 1) / kTaskPanels; };
    const int64_t column_tasks = groups(block.columns()) * steps;
    const int64_t row_tasks = block.rectangle || block.diagonal() ? 0 : groups(block.rows()) * steps;
    parallel(threads, [&](int thread) {
      const Range range(column_tasks + row_tasks, thread, threads);
      for (int64_t task = range.begin; task < range.end; ++task) {
        const bool columns = task < column_tasks;
        const int64_t local = columns ? task : task - column_tasks, group = local / steps, step = local % steps;
        if (columns)
          accumulate(weights_.by_column, block.column_begin, block.column_end, group, block.row_begin, block.row_end,
                     step, block.row_begin == 0);
        else
          accumulate(weights_.by_row, block.row_begin, block.row_end, group, block.column_begin, block.column_end, step,
                     false);
      }
    });
  }

 private:
  C* gradient_panel(int64_t p) const { return gradient_.get() + p * packed.features * kPanel; }

  // Rows k of a tile of W, which are those of panel p.
  static void store_weights(const C* w, const PackedOperand<T>& operand, int64_t p, Lane<T>* to) {
    constexpr int64_t lanes = kLanes<C>;
    if constexpr (kPerLane<T> == 1) {
      std::copy_n(w, kPanel * kPanel, to);
    } else {
      for (int64_t k = 0; k < kPanel; k += 2, w += 2 * kPanel)
        for (int64_t i = 0; i < kPanel; i += lanes, to += lanes)
          store<Lane<T>, Lane<T>>(to, join(load<C, C>(w + i) * operand.unit_of(p * kPanel + k),
                                           load<C, C>(w + kPanel + i) * operand.unit_of(p * kPanel + k + 1)));
    }
  }

  // For the panels of `group` in [to_begin, to_end), and the features of `step`:
  //   gradient[feature][32] = or += Σ_k ẑ[feature][k] W[k][32]   over rows k of panels [from, from_end)
  void accumulate(const Lane<T>* weights, int64_t to_begin, int64_t to_end, int64_t group, int64_t from,
                  int64_t from_end, int64_t step, bool first) const {
    constexpr int64_t row_lanes = kPanel / kPerLane<T>;  // lanes of a feature
    const PackedOperand<T>& other = rows();
    const int64_t size = other.panel_size(), offset = step * kFeatureStep;
    const int64_t begin = to_begin + group * kTaskPanels, end = std::min(begin + kTaskPanels, to_end);
    for (int64_t p = begin; p < end; ++p) {
      const Lane<T>* const w = weights + (p - to_begin) * (from_end - from) * Weights<T>::kTileEntries;
      C* const out = gradient_panel(p) + offset * kPanel;
      for (int64_t r = 0; r < kFeatureStep; r += kRegisterRows)
        multiply<C, row_lanes, 1>(other.row_pairs_panel(from) + (offset + r) * row_lanes, w, row_lanes,
                                  Accumulate<C>{out + r * kPanel, !first}, from_end - from, size);
    }
  }
};

}  // namespace itrd::ITRD_ISA
