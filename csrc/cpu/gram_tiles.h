// The Gram term of gram.h on AMX tiles: the same macro tiles of W, with every product taken of bfloat16 slices.
//
// Slices take half as much memory again as the numbers, and what another core has written comes slowly: each thread
// takes apart what it multiplies, a chunk at a time that stays in its L2 cache.
#pragma once

#include <vector>

#include "cpu/macro.h"
#include "cpu/mutual_information.h"
#include "cpu/sliced.h"

namespace itrd::ITRD_ISA {

// Of a product Wẑ: panels of a task, blocks of features, and blocks of rows that are summed at a time.
constexpr int64_t GROUP_PANELS = 8, SECTION_STEPS = 8, ROW_CHUNK = 8;
static_assert(SECTION_STEPS % CHUNK == 0);

template <class T>
class GramTiles : public GramPlan {
  static constexpr int Z = FEATURE_SLICES<T>, W = WEIGHT_SLICES<T>;
  static constexpr int64_t Z_WORDS = Z * BLOCK_WORDS, W_WORDS = W * BLOCK_WORDS;

  // One input and, where its gradient is wanted, W of the macro tile at hand: left operand blocks [row panel][column
  // panel] and, of the transposed tile, [column panel][row panel], which on the diagonal are the same.
  struct Side {
    Sliced<T> sliced;
    Matrix result;
    Buffer<Word> weights, transposed;

    Side(const Matrix& z, const Matrix& result, const Panels& panels) : sliced(z), result(result) {
      const int64_t size = panels.side * panels.side * W_WORDS;
      if (result) weights = allocate<Word>(size);
      if (result && panels.macros > 1) transposed = allocate<Word>(size);
    }
  };

  Side s_, t_;
  Buffer<float> tiles_;    // of each thread: G_s and G_t of the pairs of one block, or Wẑ of one task
  Buffer<Word> operands_;  // of each thread: a chunk of what it multiplies from the right

 public:
  static constexpr int64_t PAIR_BLOCK = 16;  // panels on a side of a block of pairs, which are taken apart together

  explicit GramTiles(const GramProblem& problem)
      : GramPlan(problem, 8e6),
        s_(problem.s, problem.grad_s, panels),
        t_(problem.t, problem.grad_t, panels),
        tiles_(allocate<float>(threads * tiles_size())),
        operands_(allocate<Word>(threads * OPERANDS)) {}

  const Norms<T>& norms_s() const { return s_.sliced; }
  const Norms<T>& norms_t() const { return t_.sliced; }

  void prepare() {
    parallel(threads, [&](int thread) {
      const Range range(problem.s.rows, thread, threads);
      for (Side* side : {&s_, &t_})
        for (int64_t i = range.begin; i < range.end; ++i) side->sliced.norm(i);
    });
  }

  // Sums of the pairs, and with `gradient` their W.
  void form_weights(const Macro& macro, const std::vector<Pair>& pairs, const Range& range, bool gradient,
                    Coefficients c, std::vector<Sums>& partial, int thread) const {
    const TileScope scope;
    float* const tiles_s = tiles_.get() + thread * tiles_size();
    Word* const columns = operands_.get() + thread * OPERANDS;
    for (int64_t begin = range.begin, end; begin < range.end; begin = end) {
      for (end = begin; end < range.end && pairs[end].block == pairs[begin].block;) ++end;
      float* const tiles_t = tiles_s + (end - begin) * BLOCK_WORDS;
      products(s_.sliced, pairs, begin, end, columns, tiles_s);
      products(t_.sliced, pairs, begin, end, columns, tiles_t);
      for (int64_t i = begin; i < end; ++i) {
        const int64_t at = (i - begin) * BLOCK_WORDS;
        partial[i] = epilogue(macro, pairs[i], tiles_s + at, tiles_t + at, gradient, c);
      }
    }
  }

  void multiply_weights(const Macro& macro) const {
    if (s_.result) multiply_weights(macro, s_);
    if (t_.result) multiply_weights(macro, t_);
  }

  void finish() {
    parallel(threads, [&](int thread) {
      const Range range(problem.s.rows, thread, threads);
      for (const Side* side : {&s_, &t_})
        if (side->result)
          for (int64_t i = range.begin; i < range.end; ++i) side->sliced.project(i, side->result);
    });
  }

 private:
  static constexpr int64_t OPERANDS = std::max(2 * PAIR_BLOCK * CHUNK, SECTION_STEPS* ROW_CHUNK) * Z_WORDS;

  int64_t tiles_size() const {
    return std::max(2 * std::min(PAIR_BLOCK * PAIR_BLOCK, panels.count * panels.count), GROUP_PANELS * SECTION_STEPS) *
           BLOCK_WORDS;
  }

  // zzᵀ of pairs [begin, end) of one block. The tiles sleep when they have nothing to do for a while, and take as long
  // as a product to wake: all operands of a chunk are taken apart before they are multiplied.
  static void products(const Sliced<T>& z, const std::vector<Pair>& pairs, int64_t begin, int64_t end, Word* operands,
                       float* tiles) {
    int64_t row = pairs[begin].row, row_end = row, column = pairs[begin].column, column_end = column;
    for (int64_t i = begin; i < end; ++i) {
      row_end = pairs[i].row + 1;
      column = std::min(column, pairs[i].column);
      column_end = std::max(column_end, pairs[i].column + 1);
    }
    const int64_t widest = std::max(row_end - row, column_end - column);
    const int64_t chunk = CHUNK * (PAIR_BLOCK / widest), size = chunk * Z_WORDS;
    Word *const lefts = operands, *const rights = operands + widest * size;
    for (int64_t k = 0; k < z.steps; k += chunk) {
      const int64_t count = std::min(chunk, z.steps - k);
      auto split = [&](int64_t panel, Word* left) {
        for (int64_t i = 0; i < count; i += CHUNK)
          z.split_panel(panel, k + i, std::min(CHUNK, count - i), left + i * Z_WORDS);
      };
      for (int64_t p = row; p < row_end; ++p) split(p, lefts + (p - row) * size);
      for (int64_t q = column; q < column_end; ++q) {
        alignas(64) Word left[CHUNK * Z_WORDS];
        for (int64_t i = 0; i < count; i += CHUNK) {
          const int64_t blocks = std::min(CHUNK, count - i);
          const Word* from = left;
          if (row <= q && q < row_end)
            from = lefts + (q - row) * size + i * Z_WORDS;
          else
            z.split_panel(q, k + i, blocks, left);
          z.pack_columns(from, blocks, rights + (q - column) * size + i * Z_WORDS);
        }
      }
      for (int64_t i = 0; i < count; i += CHUNK)
        for (int64_t pair = begin; pair < end; ++pair)
          multiply_blocks<Z, Z>(lefts + (pairs[pair].row - row) * size + i * Z_WORDS,
                                rights + (pairs[pair].column - column) * size + i * Z_WORDS, std::min(CHUNK, count - i),
                                tiles + (pair - begin) * BLOCK_WORDS, k + i > 0);
    }
  }

  // Sums of a pair's tiles, and with `gradient` its W and W' as operands: W_ij/‖z_j‖, since the features keep their
  // norms.
  Sums epilogue(const Macro& m, const Pair& pair, float* g_s, float* g_t, bool gradient, Coefficients c) const {
    using V = Vector<float>;
    const bool diagonal = pair.row == pair.column;
    const float *const s_i = &s_.sliced.inverse[pair.row * PANEL], *const s_j = &s_.sliced.inverse[pair.column * PANEL];
    const float *const t_i = &t_.sliced.inverse[pair.row * PANEL], *const t_j = &t_.sliced.inverse[pair.column * PANEL];
    const V c_s = broadcast(float(c.s)), c_st = broadcast(float(c.st));
    V sum_s{}, sum_st{};
    for (int64_t i = 0; i < PANEL; ++i)
      for (int64_t j = 0; j < PANEL; j += 16) {
        float *const at_s = g_s + i * PANEL + j, *const at_t = g_t + i * PANEL + j;
        V g = load<float, float>(at_s) * s_i[i] * load<float, float>(s_j + j);
        V h = load<float, float>(at_t) * t_i[i] * load<float, float>(t_j + j);
        // W_ii ẑ_i is parallel to ẑ_i, which the projection removes; the sums' own diagonal is counted by the traces.
        if (diagonal && i >= j && i < j + 16) g[i - j] = 0, h[i - j] = 0;
        V w_s, w_t;
        mutual_information(g, h, c_s, c_st, sum_s, sum_st, w_s, w_t);
        store<float, float>(at_s, w_s);
        store<float, float>(at_t, w_t);
      }
    if (gradient && s_.result) keep(s_, m, pair, g_s, s_i, s_j);
    if (gradient && t_.result) keep(t_, m, pair, g_t, t_i, t_j);
    const double twice = diagonal ? 1 : 2;
    return {twice * sum_lanes<float>(sum_s), twice * sum_lanes<float>(sum_st)};
  }

  // A pair's W as left operand of its rows and, transposed, of its columns.
  static void keep(const Side& side, const Macro& m, const Pair& pair, const float* w, const float* scale_i,
                   const float* scale_j) {
    const int64_t i = pair.row - m.row_begin, j = pair.column - m.column_begin;
    store_weights(w, scale_j, side.weights.get() + (i * m.columns() + j) * W_WORDS);
    if (pair.row == pair.column) return;
    alignas(64) float turned[BLOCK_WORDS];
    transpose_tile(w, turned);
    const Buffer<Word>& to = m.diagonal() ? side.weights : side.transposed;
    store_weights(turned, scale_i, to.get() + (j * m.rows() + i) * W_WORDS);
  }

  static void store_weights(const float* w, const float* scale, Word* to) {
    for (int64_t i = 0; i < PANEL; ++i) {
      Pairs slices[W];
      split<W>(load<float, float>(w + i * PANEL) * load<float, float>(scale),
               load<float, float>(w + i * PANEL + 16) * load<float, float>(scale + 16), slices);
      for (int s = 0; s < W; ++s) std::memcpy(to + s * BLOCK_WORDS + i * PANEL, &slices[s], sizeof slices[s]);
    }
  }

  // Wẑ of the macro tile's rows and, off the diagonal, Wᵀẑ of its columns.
  void multiply_weights(const Macro& m, const Side& side) const {
    const int64_t sections = (side.sliced.steps + SECTION_STEPS - 1) / SECTION_STEPS;
    auto groups = [](int64_t panels) { return (panels + GROUP_PANELS - 1) / GROUP_PANELS; };
    const int64_t row_tasks = groups(m.rows()) * sections,
                  column_tasks = m.diagonal() ? 0 : groups(m.columns()) * sections;
    parallel(threads, [&](int thread) {
      const TileScope scope;
      Word* const features = operands_.get() + thread * OPERANDS;
      float* const sums = tiles_.get() + thread * tiles_size();
      const Range range(row_tasks + column_tasks, thread, threads);
      for (int64_t task = range.begin; task < range.end; ++task) {
        if (task < row_tasks)
          accumulate(side, side.weights.get(), m.row_begin, m.rows(), m.column_begin, m.columns(), task / sections,
                     task % sections, m.diagonal() && m.row_begin == 0, features, sums);
        else
          accumulate(side, side.transposed.get(), m.column_begin, m.columns(), m.row_begin, m.rows(),
                     (task - row_tasks) / sections, (task - row_tasks) % sections, m.row_begin == 0, features, sums);
      }
    });
  }

  // result[i] = or += Σ_k W_ik z_k, i in one group of the `count` panels from `begin`, k in the `terms` panels from
  // `from`, for one section of the features.
  static void accumulate(const Side& side, const Word* weights, int64_t begin, int64_t count, int64_t from,
                         int64_t terms, int64_t group, int64_t section, bool first, Word* features, float* sums) {
    const Sliced<T>& z = side.sliced;
    const int64_t panel = group * GROUP_PANELS, panel_end = std::min(panel + GROUP_PANELS, count);
    const int64_t step = section * SECTION_STEPS, step_end = std::min(step + SECTION_STEPS, z.steps);
    auto block = [&](int64_t p, int64_t f) { return sums + ((p - panel) * SECTION_STEPS + f - step) * BLOCK_WORDS; };
    for (int64_t k = 0; k < terms; k += ROW_CHUNK) {
      const int64_t blocks = std::min(ROW_CHUNK, terms - k), stride = ROW_CHUNK * Z_WORDS;
      for (int64_t j = 0; j < blocks; ++j)
        for (int64_t f = step; f < step_end; f += CHUNK)
          z.pack_rows(from + k + j, f, std::min(CHUNK, step_end - f), features + (f - step) * stride + j * Z_WORDS,
                      stride);
      for (int64_t p = panel; p < panel_end; ++p)
        for (int64_t f = step; f < step_end; ++f)
          multiply_blocks<W, Z>(weights + (p * terms + k) * W_WORDS, features + (f - step) * stride, blocks,
                                block(p, f), k > 0);
    }
    for (int64_t p = panel; p < panel_end; ++p)
      z.store_panel(block(p, step), begin + p, step, step_end, side.result, !first);
  }
};

}  // namespace itrd::ITRD_ISA
