// The Gram engine on AMX: the blocks of W are those of packed.h, but every product is one of integers whose limbs are
// bytes (fixed_point.h).
//
// What another core has written comes slowly: each thread takes apart what it multiplies, a chunk at a time. The right
// operand stays in the L1 cache while left operands stream past it from the L2 cache.
#pragma once

#include <vector>

#include "cpu/gram/amx_operand.h"
#include "cpu/gram/amx_outliers.h"
#include "cpu/gram/schedule.h"
#include "cpu/gram/sweep.h"

namespace itrd::ITRD_ISA {

template <class T>
class AmxGram : public GramPlan {
  // Of a product Wẑ: panels of rows and strips of 32 features of a task, and panels of rows that are summed at a time.
  static constexpr int64_t kTaskPanels = 16, kTaskStrips = 8, kChunkPanels = kChunkNumbers / kPanel;
  static constexpr int kLimbCount = kLimbs<T>;
  static constexpr int64_t kTileEntries = kPanel * kPanel, kOperandBytes = AmxOperand<T>::kOperandBytes;
  // Of W: a tile of W_ij unit_j and, behind it, Σ_j W_ij G_ij of each of its rows.
  static constexpr int64_t kWeightTile = kTileEntries + kPanel;

  // One input and, where its gradient is wanted, W of the block at hand: [row panel][column panel] and, transposed,
  // [column panel][row panel], which on the diagonal are the same. Null where there is none of it.
  struct Side {
    AmxOperand<T> operand;
    Matrix result;  // the gradient
    Buffer<float> weights, transposed;
    std::vector<double> projection;  // g_i·ẑ_i = Σ_j W_ij G_ij of each row, as far as W has been formed

    Side(const Matrix& z, const Matrix& result, const Panels& panels) : operand(z), result(result) {
      const int64_t size = panels.per_block * panels.per_block * kWeightTile;
      if (result) weights = allocate<float>(size);
      if (result && panels.blocks > 1) transposed = allocate<float>(size);
      if (result) projection.resize(panels.count * kPanel);
    }
  };

  Side s_, t_;
  Buffer<float> tiles_;      // of each thread: G_s and G_t of the pairs of one group, or Wẑ of one task
  Buffer<int8_t> operands_;  // of each thread: a chunk of what it multiplies

 public:
  static constexpr int64_t kGroupSide = 16;  // panels on a side of a group of pairs, which are taken apart together

  explicit AmxGram(const GramProblem& problem)
      : GramPlan(problem),
        s_(problem.s, problem.dgram_s, panels),
        t_(problem.t, problem.dgram_t, panels),
        tiles_(allocate<float>(threads * tiles_size())),
        operands_(allocate<int8_t>(threads * kThreadOperands)) {}

  const RowNorms<T>& norms_s() const { return s_.operand; }
  const RowNorms<T>& norms_t() const { return t_.operand; }

  // Takes the norms and the largest features of all rows.
  void prepare() {
    parallel(threads, [&](int thread) {
      const Range range(problem.s.rows, thread, threads);
      for (Side* side : {&s_, &t_})
        for (int64_t i = range.begin; i < range.end; ++i) side->operand.measure(i);
    });
  }

  // Whether the limbs are enough for these inputs.
  bool accurate() const { return s_.operand.accurate() && t_.operand.accurate(); }

  Sums sweep(bool gradient, Coefficients c) { return sweep_blocks(*this, gradient, c); }

  // Sums of the pairs in `range` and, with `gradient`, their W.
  void form_weights(const Block& block, const std::vector<PanelPair>& pairs, const Range& range, bool gradient,
                    Coefficients c, std::vector<Sums>& partial, int thread) const {
    Multiplier<kLimbCount> tiles;
    float* const tiles_s = tiles_.get() + thread * tiles_size();
    int8_t* const operands = operands_.get() + thread * kThreadOperands;
    for (int64_t begin = range.begin, end; begin < range.end; begin = end) {
      for (end = begin; end < range.end && pairs[end].group == pairs[begin].group;) ++end;
      float* const tiles_t = tiles_s + (end - begin) * kTileEntries;
      products(s_.operand, pairs, begin, end, operands, tiles, tiles_s);
      products(t_.operand, pairs, begin, end, operands, tiles, tiles_t);
      tiles.finish();
      for (int64_t i = begin; i < end; ++i) {
        const int64_t at = (i - begin) * kTileEntries;
        partial[i] = epilogue(block, pairs[i], tiles_s + at, tiles_t + at, gradient, c);
      }
    }
  }

  // Adds what the block of W contributes to Wẑ.
  void multiply_weights(const Block& block) {
    if (s_.result) multiply_weights(block, s_);
    if (t_.result) multiply_weights(block, t_);
  }

 private:
  // Bytes of a thread's part of operands_.
  static constexpr int64_t kThreadOperands = std::max(kGroupSide + 2, kTaskPanels + kTaskStrips) * kOperandBytes;

  // Numbers of a thread's part of tiles_.
  int64_t tiles_size() const {
    return std::max(2 * std::min(kGroupSide * kGroupSide, panels.count * panels.count), kTaskPanels * kTaskStrips) *
           kTileEntries;
  }

  // G of pairs [begin, end), which are of one group, but for the factor unit_j of the columns.
  static void products(const AmxOperand<T>& z, const std::vector<PanelPair>& pairs, int64_t begin, int64_t end,
                       int8_t* operands, Multiplier<kLimbCount>& tiles, float* to) {
    int64_t row = pairs[begin].row, row_end = row;
    for (int64_t i = begin; i < end; ++i) {
      row = std::min(row, pairs[i].row);
      row_end = std::max(row_end, pairs[i].row + 1);
    }
    int8_t *const right = operands, *const other = right + kOperandBytes, *const lefts = other + kOperandBytes;
    for (int64_t k = 0; k < z.steps; k += kChunkSteps) {
      const int64_t count = std::min(kChunkSteps, z.steps - k);
      auto left = [&](int64_t p) { return lefts + (p - row) * kOperandBytes; };
      for (int64_t p = row; p < row_end; ++p) z.split_rows(p, k, count, left(p));
      for (int64_t i = begin; i < end;) {
        const int64_t q = pairs[i].column;
        const bool also_left = row <= q && q < row_end;
        if (!also_left) z.split_rows(q, k, count, other);
        z.turn_rows(also_left ? left(q) : other, count, right);
        for (; i < end && pairs[i].column == q; ++i)
          tiles.multiply(left(pairs[i].row), right, count, &z.unit[pairs[i].row * kPanel],
                         to + (i - begin) * kTileEntries, k > 0);
      }
    }
  }

  // Sums of a pair's two tiles and, with `gradient`, its W and W'.
  Sums epilogue(const Block& block, const PanelPair& pair, float* g_s, float* g_t, bool gradient,
                Coefficients c) const {
    using V = Vector<float>;
    const bool diagonal = pair.row == pair.column, want_s = gradient && s_.result, want_t = gradient && t_.result;
    const float *const s_j = &s_.operand.unit[pair.column * kPanel], *const t_j =
                                                                         &t_.operand.unit[pair.column * kPanel];
    const V c_s = broadcast(float(c.s)), c_st = broadcast(float(c.st));
    V sum_s{}, sum_st{};
    Projections projections_s, projections_t;
    for (int64_t i = 0; i < kPanel; ++i) {
      V row_s{}, row_t{};
      for (int64_t j = 0; j < kPanel; j += 16) {
        float *const at_s = g_s + i * kPanel + j, *const at_t = g_t + i * kPanel + j;
        V g = load<float, float>(at_s) * load<float, float>(s_j + j);
        V h = load<float, float>(at_t) * load<float, float>(t_j + j);
        // W_ii ẑ_i is parallel to ẑ_i, which the projection removes; the diagonal's part of the sums is in the traces.
        if (diagonal && i >= j && i < j + 16) g[i - j] = 0, h[i - j] = 0;
        V w_s, w_t;
        mutual_information(g, h, c_s, c_st, sum_s, sum_st, w_s, w_t);
        if (want_s) row_s += projections_s.add(j, at_s, w_s, g);
        if (want_t) row_t += projections_t.add(j, at_t, w_t, h);
      }
      if (want_s) projections_s.rows[i] = sum_lanes<float>(row_s);
      if (want_t) projections_t.rows[i] = sum_lanes<float>(row_t);
    }
    if (want_s) keep(s_, block, pair, g_s, projections_s);
    if (want_t) keep(t_, block, pair, g_t, projections_t);
    const double twice = diagonal ? 1 : 2;
    return {twice * sum_lanes<float>(sum_s), twice * sum_lanes<float>(sum_st)};
  }

  // Σ_j W_ij G_ij of the rows and Σ_i W_ij G_ij of the columns of a pair, whose W takes the place of its G.
  struct Projections {
    alignas(64) float rows[kPanel] = {}, columns[kPanel] = {};
    Vector<float> add(int64_t j, float* at, Vector<float> w, Vector<float> g) {
      store<float, float>(at, w);
      store<float, float>(columns + j, load<float, float>(columns + j) + w * g);
      return w * g;
    }
  };

  // Keeps a pair's W for its rows and, transposed, for its columns.
  static void keep(const Side& side, const Block& block, const PanelPair& pair, const float* w,
                   const Projections& projections) {
    const float* const unit = side.operand.unit.data();
    const int64_t i = pair.row - block.row_begin, j = pair.column - block.column_begin;
    store_weights(w, unit + pair.column * kPanel, projections.rows,
                  side.weights.get() + (i * block.columns() + j) * kWeightTile);
    if (pair.row == pair.column) return;
    alignas(64) float transposed[kTileEntries];
    transpose_tile(w, transposed);
    const Buffer<float>& to = block.diagonal() ? side.weights : side.transposed;
    store_weights(transposed, unit + pair.row * kPanel, projections.columns,
                  to.get() + (j * block.rows() + i) * kWeightTile);
  }

  // Keeps a tile of W times unit_j of its columns, and the projections of its rows.
  static void store_weights(const float* w, const float* unit, const float* projection, float* to) {
    for (int64_t i = 0; i < kTileEntries; i += 16)
      store<float, float>(to + i, load<float, float>(w + i) * load<float, float>(unit + i % kPanel));
    std::copy_n(projection, kPanel, to + kTileEntries);
  }

  // Adds Σ_j W_ij G_ij of `count` panels of rows from `begin` on, over `terms` panels of columns.
  static void add_projections(Side& side, const float* weights, int64_t begin, int64_t count, int64_t terms) {
    for (int64_t p = 0; p < count * terms; ++p)
      for (int64_t r = 0; r < kPanel; ++r)
        side.projection[(begin + p / terms) * kPanel + r] += weights[p * kWeightTile + kTileEntries + r];
  }

  // Wẑ of the block's rows and, off the diagonal, Wᵀẑ of its columns.
  void multiply_weights(const Block& block, Side& side) const {
    add_projections(side, side.weights.get(), block.row_begin, block.rows(), block.columns());
    if (!block.diagonal())
      add_projections(side, side.transposed.get(), block.column_begin, block.columns(), block.rows());
    const int64_t strips = (side.operand.z.columns + kPanel - 1) / kPanel;
    auto groups = [](int64_t panels) { return (panels + kTaskPanels - 1) / kTaskPanels; };
    const int64_t row_groups = groups(block.rows()),
                  all_groups = row_groups + (block.diagonal() ? 0 : groups(block.columns()));
    const int64_t sections =
        std::max((strips + kTaskStrips - 1) / kTaskStrips, std::min(strips, (threads + all_groups - 1) / all_groups));
    parallel(threads, [&](int thread) {
      Multiplier<kLimbCount> tiles;
      const Range range(all_groups * sections, thread, threads);
      for (int64_t task = range.begin; task < range.end; ++task) {
        const int64_t group = task / sections;
        const Range section(strips, task % sections, sections);
        if (group < row_groups)
          accumulate(side, side.weights.get(), block.row_begin, Range(block.rows(), group, row_groups),
                     block.column_begin, block.columns(), section, block.diagonal() && block.row_begin == 0,
                     block.column_end == panels.count, tiles, thread);
        else
          accumulate(side, side.transposed.get(), block.column_begin,
                     Range(block.columns(), group - row_groups, all_groups - row_groups), block.row_begin, block.rows(),
                     section, block.row_begin == 0, false, tiles, thread);
      }
    });
  }

  // result[i] = or += Σ_k W_ik z_k for i in `group` of the panels from `begin` on, k in the `terms` panels from `from`
  // on, and a section of the strips of features. What is `complete` then is projected.
  void accumulate(const Side& side, const float* weights, int64_t begin, const Range& group, int64_t from,
                  int64_t terms, const Range& section, bool first, bool complete, Multiplier<kLimbCount>& tiles,
                  int thread) const {
    const AmxOperand<T>& z = side.operand;
    int8_t *const lefts = operands_.get() + thread * kThreadOperands, *const rights =
                                                                          lefts + kTaskPanels * kOperandBytes;
    float* const sums = tiles_.get() + thread * tiles_size();
    alignas(64) float scale[kTaskPanels * kPanel];
    std::vector<Outlier> outliers;
    const int64_t strips = section.end - section.begin;
    for (int64_t k = 0; k < terms; k += kChunkPanels) {
      const int64_t panels = std::min(kChunkPanels, terms - k), steps = (panels + 1) / 2;
      outliers.clear();
      for (int64_t p = group.begin; p < group.end; ++p)
        split_weights(weights + (p * terms + k) * kWeightTile, panels, lefts + (p - group.begin) * kOperandBytes,
                      scale + (p - group.begin) * kPanel, (p - group.begin) * kPanel, (from + k) * kPanel, outliers);
      z.split_columns(from + k, panels, section, rights);
      for (int64_t f = 0; f < strips; ++f)
        for (int64_t p = 0; p < group.end - group.begin; ++p)
          tiles.multiply(lefts + p * kOperandBytes, rights + f * kOperandBytes, steps, scale + p * kPanel,
                         sums + (p * strips + f) * kTileEntries, k > 0);
      tiles.finish();
      add_outliers(z, outliers, section, sums);
    }
    for (int64_t p = group.begin; p < group.end; ++p)
      z.store_panel(sums + (p - group.begin) * strips * kTileEntries, begin + p, section, side.result, !first,
                    complete ? &side.projection[(begin + p) * kPanel] : nullptr);
  }

  // Left operand of Wz: 32 rows of `panels` tiles of W_ij unit_j, and what the integers of each row count. An entry
  // that would leave the others few bits, as of two views of one sample, is left to `outliers`.
  static void split_weights(const float* w, int64_t panels, int8_t* left, float* scale, int64_t first_row,
                            int64_t first_column, std::vector<Outlier>& outliers) {
    const int64_t steps = (panels + 1) / 2;
    alignas(64) float rest[kChunkNumbers];
    for (int64_t r = 0; r < kPanel; ++r, w += kPanel) {
      Ints most{};
      Vector<float> squares{};
      for (int64_t p = 0; p < panels; ++p)
        for (int64_t v = 0; v < kPanel; v += 16) {
          const Vector<float> x = load<float, float>(w + p * kWeightTile + v);
          most = larger(most, magnitude(x));
          squares += x * x;
        }
      float largest = largest_lane(most);
      const float* row = w;
      int64_t row_step = kWeightTile;
      if (dominates(largest, sum_lanes<float>(squares), panels * kPanel)) [[unlikely]] {
        for (int64_t p = 0; p < panels; ++p) std::copy_n(w + p * kWeightTile, kPanel, rest + p * kPanel);
        largest = take_out(rest, panels * kPanel, first_row + r, first_column, outliers);
        row = rest;
        row_step = kPanel;
      }
      const float factor = largest == 0 ? 0 : kLargest<kLimbCount> / largest;
      scale[r] = largest * (kFirstLimbValue<kLimbCount> / kLargest<kLimbCount>);
      int8_t* const to = left + r / 16 * steps * kLimbCount * kAmxTileBytes + r % 16 * kStepNumbers;
      for (int64_t i = 0; i < steps; ++i) {
        Vector<float> x[4] = {};
        for (int v = 0; v < 4; ++v)
          if (2 * i + v / 2 < panels) x[v] = load<float, float>(row + (2 * i + v / 2) * row_step + v % 2 * 16) * factor;
        Ints limbs[kLimbCount];
        row_limbs<kLimbCount>(x, limbs);
        store_limbs<kLimbCount>(limbs, to + i * kLimbCount * kAmxTileBytes, kAmxTileBytes);
      }
    }
  }
};

}  // namespace itrd::ITRD_ISA
