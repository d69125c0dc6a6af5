// Mutual-information loss (Eqs. 7–9): L = Σ_ij G_s² (1/m_s² − G_t²/m_st²), G = ẑẑᵀ, and its gradients 4Wẑ, projected.
// Nothing of size n×n is formed: macro tiles of W, at most MACRO × MACRO, live in a workspace. See csrc/README.md.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/packed.h"

namespace itrd::ITRD_ISA {

constexpr int64_t MACRO = 1024;         // rows of a macro tile of W
constexpr int64_t PAIR_BLOCK = 8;       // panels on a side of a block of pairs, whose features stay in the L2 cache
constexpr int64_t BLOCK = 4;            // panels of a task of Wẑ, whose part of W stays in the L2 cache
constexpr int64_t FEATURE_CHUNK = 128;  // features of a block of pairs that are multiplied at a time

// Two groups of panels, rows × columns of a macro tile of W; equal on the diagonal.
struct Macro {
  int64_t row_begin, row_end, column_begin, column_end;
  bool diagonal() const { return row_begin == column_begin; }
  int64_t rows() const { return row_end - row_begin; }
  int64_t columns() const { return column_end - column_begin; }
};

// Pairs (row panel, column panel) of a macro tile, block by block; of a diagonal one the upper triangle.
struct Pair {
  int64_t row, column, block;
};
inline std::vector<Pair> pairs_of(const Macro& macro) {
  std::vector<Pair> pairs;
  int64_t block = 0;
  for (int64_t top = macro.row_begin; top < macro.row_end; top += PAIR_BLOCK)
    for (int64_t left = macro.diagonal() ? top : macro.column_begin; left < macro.column_end;
         left += PAIR_BLOCK, ++block)
      for (int64_t p = top; p < std::min(top + PAIR_BLOCK, macro.row_end); ++p)
        for (int64_t q = macro.diagonal() ? std::max(left, p) : left; q < std::min(left + PAIR_BLOCK, macro.column_end);
             ++q)
          pairs.push_back({p, q, block});
  return pairs;
}

// W of a macro tile for one of the two gradients: once [column panel][row][32] and, transposed, [row
// panel][column][32], which on the diagonal are the same.
template <class C>
struct Weights {
  C *by_column = nullptr, *by_row = nullptr;
  C* tile(const Macro& m, const Pair& p) const {
    return by_column + ((p.column - m.column_begin) * m.rows() + p.row - m.row_begin) * PANEL * PANEL;
  }
  C* transposed_tile(const Macro& m, const Pair& p) const {
    C* const data = m.diagonal() ? by_column : by_row;
    return data + ((p.row - m.row_begin) * m.columns() + p.column - m.column_begin) * PANEL * PANEL;
  }
};

template <class T>
class Gram {
  using C = Wide<T>;
  struct Sums {
    double s = 0, st = 0;  // Σ G_s², Σ G_s² G_t²
  };
  // One input: what it is packed to and, where its gradient is wanted, W and Wẑ in panels, all in one piece of memory.
  struct Side {
    Packed<T> packed;
    Buffer<C> memory;
    Weights<C> weights;
    C* gradient = nullptr;

    Side(const Matrix& z, bool wanted, int64_t macro_rows, int64_t layouts)
        : packed(z),
          memory(allocate<C>(packed.size() * (wanted ? 2 : 1) + (wanted ? layouts * macro_rows * macro_rows : 0))) {
      packed.values = memory.get();
      if (!wanted) return;
      gradient = packed.values + packed.size();
      weights.by_column = gradient + packed.size();
      if (layouts > 1) weights.by_row = weights.by_column + macro_rows * macro_rows;
    }
  };

  const GramProblem& problem_;
  const int64_t panels_, macros_, macro_panels_;
  const int threads_;
  Side s_, t_;
  Buffer<C> tiles_;                                // of each thread: G_s and G_t of the pairs of one block
  double coefficient_s_ = 0, coefficient_st_ = 0;  // c_s, c_st: W = G_s (c_s − c_st G_t²), W' = −c_st G_s² G_t

  static int threads_for(const GramProblem& p) {
    return 2.0 * p.s.rows * p.s.rows * (p.s.columns + p.t.columns) < 1.6e7 ? 1 : max_threads();
  }

 public:
  explicit Gram(const GramProblem& problem)
      : problem_(problem),
        panels_((problem.s.rows + PANEL - 1) / PANEL),
        macros_((panels_ * PANEL + MACRO - 1) / MACRO),
        macro_panels_((panels_ + macros_ - 1) / macros_),
        threads_(threads_for(problem)),
        s_(problem.s, bool(problem.grad_s), macro_panels_ * PANEL, std::min<int64_t>(macros_, 2)),
        t_(problem.t, bool(problem.grad_t), macro_panels_ * PANEL, std::min<int64_t>(macros_, 2)),
        tiles_(allocate<C>(threads_ * tiles_size())) {}

  double run() {
    parallel(threads_, [&](int thread) {
      const Range range(2 * panels_, thread, threads_);
      for (int64_t i = range.begin; i < range.end; ++i) (i < panels_ ? s_ : t_).packed.pack(i % panels_);
    });
    // The traces m_s and m_st: on the diagonal G is 1 in every row that is not zero.
    double m_s = 0, m_st = 0;
    for (int64_t i = 0; i < problem_.s.rows; ++i) {
      m_s += s_.packed.alive(i);
      m_st += s_.packed.alive(i) && t_.packed.alive(i);
    }
    const bool gradient = problem_.grad_s || problem_.grad_t;
    auto over_square = [](double x, double m) { return m == 0 ? 0 * x : x / (m * m); };
    coefficient_s_ = over_square(1, m_s);
    coefficient_st_ = over_square(1, m_st);
    Sums sums;
    // With logarithms the coefficients are known only after the sums, so the tiles are formed twice.
    if (!gradient || problem_.log) sums = sweep(false);
    const double ln2 = 0.6931471805599453;
    if (problem_.log) {
      coefficient_s_ = m_s == 0 ? 0 : 1 / (ln2 * (sums.s + m_s));
      coefficient_st_ = m_st == 0 ? 0 : 1 / (ln2 * (sums.st + m_st));
    }
    if (gradient) sums = sweep(true);
    if (gradient) finish();
    const double potential_s = over_square(sums.s + m_s, m_s), potential_st = over_square(sums.st + m_st, m_st);
    if (!problem_.log) return potential_s - potential_st;
    return (m_s == 0 ? potential_s : std::log2(potential_s)) - (m_st == 0 ? potential_st : std::log2(potential_st));
  }

 private:
  int64_t tiles_size() const { return 2 * std::min(PAIR_BLOCK * PAIR_BLOCK, panels_ * panels_) * PANEL * PANEL; }

  // Every macro tile of the upper triangle: its sums, and with `gradient` its part of Wẑ.
  Sums sweep(bool gradient) {
    Sums total;
    for (int64_t top = 0; top < panels_; top += macro_panels_)
      for (int64_t left = top; left < panels_; left += macro_panels_) {
        const Macro macro{top, std::min(top + macro_panels_, panels_), left, std::min(left + macro_panels_, panels_)};
        const std::vector<Pair> pairs = pairs_of(macro);
        std::vector<Sums> partial(pairs.size());
        parallel(threads_, [&](int thread) {
          const Range range(pairs.size(), thread, threads_);
          form_weights(macro, pairs, range, gradient, partial, tiles_.get() + thread * tiles_size());
        });
        // In this order whatever the number of threads.
        for (const Sums& sums : partial) total.s += sums.s, total.st += sums.st;
        if (gradient) {
          if (problem_.grad_s) multiply_weights(macro, s_);
          if (problem_.grad_t) multiply_weights(macro, t_);
        }
      }
    return total;
  }

  void form_weights(const Macro& macro, const std::vector<Pair>& pairs, const Range& range, bool gradient,
                    std::vector<Sums>& partial, C* tiles) const {
    for (int64_t begin = range.begin, end; begin < range.end; begin = end) {
      for (end = begin; end < range.end && pairs[end].block == pairs[begin].block;) ++end;
      std::fill(tiles, tiles + 2 * (end - begin) * PANEL * PANEL, C(0));
      products(s_.packed, pairs, begin, end, tiles);
      products(t_.packed, pairs, begin, end, tiles + PANEL * PANEL);
      for (int64_t i = begin; i < end; ++i)
        partial[i] = epilogue(macro, pairs[i], tiles + 2 * (i - begin) * PANEL * PANEL, gradient);
    }
  }

  // G = ẑẑᵀ of pairs [begin, end) into every second tile.
  static void products(const Packed<T>& packed, const std::vector<Pair>& pairs, int64_t begin, int64_t end, C* tiles) {
    for (int64_t k = 0; k < packed.features; k += FEATURE_CHUNK)
      for (int64_t i = begin; i < end; ++i)
        for (int64_t r = 0; r < PANEL; r += TILE_ROWS)
          multiply<C, 1, PANEL>(packed.panel(pairs[i].row) + k * PANEL + r, packed.panel(pairs[i].column) + k * PANEL,
                                std::min(FEATURE_CHUNK, packed.features - k),
                                tiles + (2 * (i - begin) * PANEL + r) * PANEL);
  }

  // Sums of a pair's tiles, and with `gradient` its W and W'.
  Sums epilogue(const Macro& macro, const Pair& pair, C* tiles, bool gradient) const {
    constexpr int64_t L = LANES<C>;
    C *const g_s = tiles, *const g_t = tiles + PANEL * PANEL;
    const bool diagonal = pair.row == pair.column;
    // W_ii ẑ_i is parallel to ẑ_i, which the projection removes; the sums' own diagonal is counted by the traces.
    if (diagonal)
      for (int64_t i = 0; i < PANEL; ++i) g_s[i * (PANEL + 1)] = g_t[i * (PANEL + 1)] = 0;
    const bool want_s = gradient && problem_.grad_s, want_t = gradient && problem_.grad_t;
    C* const w_s = want_s ? s_.weights.tile(macro, pair) : nullptr;
    C* const w_t = want_t ? t_.weights.tile(macro, pair) : nullptr;
    const Vector<C> c_s = broadcast(C(coefficient_s_)), c_st = broadcast(C(coefficient_st_));
    Vector<C> sum_s{}, sum_st{};
    for (int64_t i = 0; i < PANEL * PANEL; i += L) {
      const Vector<C> g = load<C, C>(g_s + i), h = load<C, C>(g_t + i), g2 = g * g, h2 = h * h;
      sum_s += g2;
      sum_st += g2 * h2;
      if (want_s) store<C, C>(w_s + i, g * (c_s - c_st * h2));
      if (want_t) store<C, C>(w_t + i, -c_st * g2 * h);
    }
    if (!diagonal) {
      if (want_s) transpose_tile(w_s, s_.weights.transposed_tile(macro, pair));
      if (want_t) transpose_tile(w_t, t_.weights.transposed_tile(macro, pair));
    }
    const double twice = diagonal ? 1 : 2;
    return {twice * sum_lanes<C>(sum_s), twice * sum_lanes<C>(sum_st)};
  }

  // Wẑ of the macro tile's columns and, off the diagonal, Wᵀẑ of its rows.
  void multiply_weights(const Macro& m, Side& side) const {
    const int64_t steps = side.packed.features / FEATURE_STEP;
    auto blocks = [](int64_t panels) { return (panels + BLOCK - 1) / BLOCK; };
    const int64_t column_tasks = blocks(m.columns()) * steps, row_tasks = m.diagonal() ? 0 : blocks(m.rows()) * steps;
    parallel(threads_, [&](int thread) {
      const Range range(column_tasks + row_tasks, thread, threads_);
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
  static void accumulate(Side& side, const C* weights, int64_t to_begin, int64_t to_end, int64_t block, int64_t from,
                         int64_t from_end, int64_t step, bool first) {
    const int64_t size = side.packed.panel_size(), offset = step * FEATURE_STEP * PANEL;
    const int64_t begin = to_begin + block * BLOCK, end = std::min(begin + BLOCK, to_end);
    for (int64_t p = begin; p < end; ++p) {
      const C* const w = weights + (p - to_begin) * (from_end - from) * PANEL * PANEL;
      C* const out = side.gradient + p * size + offset;
      if (first) std::fill(out, out + FEATURE_STEP * PANEL, C(0));
      for (int64_t r = 0; r < FEATURE_STEP; r += TILE_ROWS)
        multiply<C, PANEL, 1>(side.packed.panel(from) + offset + r * PANEL, w, PANEL, out + r * PANEL, from_end - from,
                              size);
    }
  }

  void finish() {
    auto one = [&](Side& side, const Matrix& result) {
      if (!result) return;
      parallel(threads_, [&](int thread) {
        const Range range(panels_, thread, threads_);
        for (int64_t p = range.begin; p < range.end; ++p)
          side.packed.unpack(p, side.gradient + p * side.packed.panel_size(), result);
      });
    };
    // Unpack one side with the other's memory given back already.
    if (!problem_.grad_t) t_.memory.reset();
    one(s_, problem_.grad_s);
    s_.memory.reset();
    one(t_, problem_.grad_t);
  }
};

template <class T>
double gram_forward(const GramProblem& problem) {
  return Gram<T>(problem).run();
}

}  // namespace itrd::ITRD_ISA
