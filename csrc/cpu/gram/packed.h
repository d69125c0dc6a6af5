// Mutual-information loss (Eqs. 7–9): L = Σ_ij G_s² (1/m_s² − G_t²/m_st²), G = ẑẑᵀ, and its gradients 4Wẑ, projected.
// Nothing of size n×n is formed: macro tiles of W, at most MACRO × MACRO, live in a workspace. See csrc/README.md.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/gram/packed_operand.h"
#include "cpu/gram/schedule.h"
#include "cpu/gram/sweep.h"

namespace itrd::ITRD_ISA {

constexpr int64_t BLOCK = 4;            // panels of a task of Wẑ, whose part of W stays in the L2 cache
constexpr int64_t FEATURE_CHUNK = 256;  // lanes of features of a block of pairs that are multiplied at a time

// W of a macro tile for one of the two gradients: once [column panel][row][32] and, transposed, [row
// panel][column][32], which on the diagonal are the same. A lane of two holds two rows k, times the factor between what
// is packed and ẑ_k.
template <class T>
struct Weights {
  static constexpr int64_t TILE = PANEL * PANEL / PER_LANE<T>;
  Lane<T>*by_column = nullptr, *by_row = nullptr;
  Lane<T>* tile(const Macro& m, const Pair& p) const {
    return by_column + ((p.column - m.column_begin) * m.rows() + p.row - m.row_begin) * TILE;
  }
  Lane<T>* transposed_tile(const Macro& m, const Pair& p) const {
    Lane<T>* const data = m.diagonal() ? by_column : by_row;
    return data + ((p.row - m.row_begin) * m.columns() + p.column - m.column_begin) * TILE;
  }
};

template <class T>
class Gram : public GramPlan {
  using C = Wide<T>;
  // One input: what it is packed to and, where its gradient is wanted, W and Wẑ in panels.
  struct Side {
    Packed<T> packed;
    Buffer<Lane<T>> memory;
    Weights<T> weights;
    Buffer<C> gradient;

    Side(const Matrix& z, bool wanted, const Panels& panels) : packed(z) {
      const int64_t size = packed.size(), tiles = wanted ? panels.side * panels.side * Weights<T>::TILE : 0;
      const int64_t copies = wanted ? PER_LANE<T> : 1, layouts = std::min<int64_t>(panels.macros, 2);
      memory = allocate<Lane<T>>(copies * size + layouts * tiles);
      packed.values = memory.get();
      if (!wanted) return;
      packed.turned = packed.values + (copies - 1) * size;
      weights.by_column = packed.values + copies * size;
      if (layouts > 1) weights.by_row = weights.by_column + tiles;
      gradient = allocate<C>(size * PER_LANE<T>);
    }

    C* gradient_panel(int64_t p) const { return gradient.get() + p * packed.features * PANEL; }
  };

  Side s_, t_;
  Buffer<C> tiles_;  // of each thread: G_s and G_t of the pairs of one block

 public:
  static constexpr int64_t PAIR_BLOCK = 8;  // panels on a side of a block of pairs, whose features stay in the L2 cache

  explicit Gram(const GramProblem& problem)
      : GramPlan(problem),
        s_(problem.s, bool(problem.grad_s), panels),
        t_(problem.t, bool(problem.grad_t), panels),
        tiles_(allocate<C>(threads * tiles_size())) {}

  const Norms<T>& norms_s() const { return s_.packed; }
  const Norms<T>& norms_t() const { return t_.packed; }

  void prepare() {
    parallel(threads, [&](int thread) {
      const Range range(2 * panels.count, thread, threads);
      for (int64_t i = range.begin; i < range.end; ++i) (i < panels.count ? s_ : t_).packed.pack(i % panels.count);
    });
  }

  Sums sweep(bool gradient, Coefficients c) {
    const Sums sums = sweep_macros(*this, gradient, c);
    if (gradient) finish();
    return sums;
  }

  // Sums of the pairs, and with `gradient` their W.
  void form_weights(const Macro& macro, const std::vector<Pair>& pairs, const Range& range, bool gradient,
                    Coefficients c, std::vector<Sums>& partial, int thread) const {
    C* const tiles = tiles_.get() + thread * tiles_size();
    for (int64_t begin = range.begin, end; begin < range.end; begin = end) {
      for (end = begin; end < range.end && pairs[end].block == pairs[begin].block;) ++end;
      products(s_.packed, pairs, begin, end, tiles);
      products(t_.packed, pairs, begin, end, tiles + PANEL * PANEL);
      for (int64_t i = begin; i < end; ++i)
        partial[i] = epilogue(macro, pairs[i], tiles + 2 * (i - begin) * PANEL * PANEL, gradient, c);
    }
  }

  void multiply_weights(const Macro& macro) {
    if (problem.grad_s) multiply_weights(macro, s_);
    if (problem.grad_t) multiply_weights(macro, t_);
  }

 private:
  void finish() {
    auto one = [&](Side& side, const Matrix& result) {
      if (!result) return;
      parallel(threads, [&](int thread) {
        const Range range(panels.count, thread, threads);
        for (int64_t p = range.begin; p < range.end; ++p) side.packed.unpack(p, side.gradient_panel(p), result);
      });
    };
    // Unpack one side with the other's memory given back already.
    if (!problem.grad_t) t_.memory.reset();
    one(s_, problem.grad_s);
    s_.memory.reset();
    s_.gradient.reset();
    one(t_, problem.grad_t);
  }

  int64_t tiles_size() const {
    return 2 * std::min(PAIR_BLOCK * PAIR_BLOCK, panels.count * panels.count) * PANEL * PANEL;
  }

  // zzᵀ of what is packed, pairs [begin, end), into every second tile.
  static void products(const Packed<T>& packed, const std::vector<Pair>& pairs, int64_t begin, int64_t end, C* tiles) {
    constexpr int64_t HALF = PANEL / 2;
    const int64_t lanes = packed.features / PER_LANE<T>;
    for (int64_t k = 0; k < lanes; k += FEATURE_CHUNK)
      for (int64_t i = begin; i < end; ++i) {
        const int64_t count = std::min(FEATURE_CHUNK, lanes - k);
        const Lane<T>* const rows = packed.panel(pairs[i].row) + k * PANEL;
        const Lane<T>* const columns = packed.panel(pairs[i].column) + k * PANEL;
        C* const tile = tiles + 2 * (i - begin) * PANEL * PANEL;
        // On the diagonal a quarter of the tile repeats another.
        const int64_t whole = pairs[i].row == pairs[i].column ? HALF : PANEL;
        for (int64_t r = 0; r < whole; r += TILE_ROWS)
          multiply<C, 1, PANEL>(rows + r, columns, count, Accumulate<C>{tile + r * PANEL, k > 0});
        for (int64_t r = whole; r < PANEL; r += TILE_ROWS)
          multiply<C, 1, PANEL, HALF>(rows + r, columns + HALF, count, Accumulate<C>{tile + r * PANEL + HALF, k > 0});
        if (whole == HALF && k + count == lanes) transpose_tile<HALF>(tile + HALF, tile + HALF * PANEL);
      }
  }

  // Sums of a pair's tiles, and with `gradient` its W and W', which take their places.
  Sums epilogue(const Macro& macro, const Pair& pair, C* tiles, bool gradient, Coefficients c) const {
    constexpr int64_t L = LANES<C>;
    C *const g_s = tiles, *const g_t = tiles + PANEL * PANEL;
    const bool diagonal = pair.row == pair.column;
    // W_ii ẑ_i is parallel to ẑ_i, which the projection removes; the sums' own diagonal is counted by the traces.
    if (diagonal)
      for (int64_t i = 0; i < PANEL; ++i) g_s[i * (PANEL + 1)] = g_t[i * (PANEL + 1)] = 0;
    const bool want_s = gradient && problem.grad_s, want_t = gradient && problem.grad_t;
    const Vector<C> c_s = broadcast(C(c.s)), c_st = broadcast(C(c.st));
    Vector<C> sum_s{}, sum_st{};
    for (int64_t i = 0; i < PANEL * PANEL; i += L) {
      Vector<C> of_s, of_t;
      auto entries = [&](const Packed<T>& z, const C* g) {
        const int64_t row = pair.row * PANEL + i / PANEL, column = pair.column * PANEL + i % PANEL;
        return load<C, C>(g + i) * z.unit_of(row) * z.unit(column);
      };
      mutual_information(entries(s_.packed, g_s), entries(t_.packed, g_t), c_s, c_st, sum_s, sum_st, of_s, of_t);
      if (want_s) store<C, C>(g_s + i, of_s);
      if (want_t) store<C, C>(g_t + i, of_t);
    }
    if (want_s) keep(s_, macro, pair, g_s);
    if (want_t) keep(t_, macro, pair, g_t);
    const double twice = diagonal ? 1 : 2;
    return {twice * sum_lanes<C>(sum_s), twice * sum_lanes<C>(sum_st)};
  }

  // A pair's W for its columns and, transposed, for its rows.
  static void keep(const Side& side, const Macro& macro, const Pair& pair, const C* w) {
    store_weights(w, side.packed, pair.row, side.weights.tile(macro, pair));
    if (pair.row == pair.column) return;
    alignas(64) C turned[PANEL * PANEL];
    transpose_tile(w, turned);
    store_weights(turned, side.packed, pair.column, side.weights.transposed_tile(macro, pair));
  }

  // W_k of the rows k of panel p.
  static void store_weights(const C* w, const Packed<T>& packed, int64_t p, Lane<T>* to) {
    constexpr int64_t L = LANES<C>;
    if constexpr (PER_LANE<T> == 1) {
      std::copy_n(w, PANEL * PANEL, to);
    } else {
      for (int64_t k = 0; k < PANEL; k += 2, w += 2 * PANEL)
        for (int64_t i = 0; i < PANEL; i += L, to += L)
          store<Lane<T>, Lane<T>>(to, join(load<C, C>(w + i) * packed.unit_of(p * PANEL + k),
                                           load<C, C>(w + PANEL + i) * packed.unit_of(p * PANEL + k + 1)));
    }
  }

  // Wẑ of the macro tile's columns and, off the diagonal, Wᵀẑ of its rows.
  void multiply_weights(const Macro& m, Side& side) const {
    const int64_t steps = side.packed.features / FEATURE_STEP;
    auto blocks = [](int64_t panels) { return (panels + BLOCK - 1) / BLOCK; };
    const int64_t column_tasks = blocks(m.columns()) * steps, row_tasks = m.diagonal() ? 0 : blocks(m.rows()) * steps;
    parallel(threads, [&](int thread) {
      const Range range(column_tasks + row_tasks, thread, threads);
      for (int64_t task = range.begin; task < range.end; ++task) {
        const bool columns = task < column_tasks;
        const int64_t local = columns ? task : task - column_tasks, block = local / steps, step = local % steps;
        if (columns)
          accumulate(side, side.weights.by_column, m.column_begin, m.column_end, block, m.row_begin, m.row_end, step,
                     m.row_begin == 0);
        else
          accumulate(side, side.weights.by_row, m.row_begin, m.row_end, block, m.column_begin, m.column_end, step,
                     false);
      }
    });
  }

  // Panels `block` of [to_begin, to_end): gradient[feature][32] += Σ_k ẑ[feature][k] W[k][32] over rows of [from,
  // from_end).
  static void accumulate(Side& side, const Lane<T>* weights, int64_t to_begin, int64_t to_end, int64_t block,
                         int64_t from, int64_t from_end, int64_t step, bool first) {
    constexpr int64_t ROW = PANEL / PER_LANE<T>;  // lanes of a feature
    const int64_t size = side.packed.panel_size(), offset = step * FEATURE_STEP;
    const int64_t begin = to_begin + block * BLOCK, end = std::min(begin + BLOCK, to_end);
    for (int64_t p = begin; p < end; ++p) {
      const Lane<T>* const w = weights + (p - to_begin) * (from_end - from) * Weights<T>::TILE;
      C* const out = side.gradient_panel(p) + offset * PANEL;
      for (int64_t r = 0; r < FEATURE_STEP; r += TILE_ROWS)
        multiply<C, ROW, 1>(side.packed.turned_panel(from) + (offset + r) * ROW, w, ROW,
                            Accumulate<C>{out + r * PANEL, !first}, from_end - from, size);
    }
  }
};

}  // namespace itrd::ITRD_ISA
