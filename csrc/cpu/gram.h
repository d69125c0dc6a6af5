// Mutual-information loss (Eqs. 7–9): L = Σ_ij G_s² (1/m_s² − G_t²/m_st²), G = ẑẑᵀ, and its gradients 4Wẑ, projected.
// Nothing of size n×n is formed: macro tiles of W, at most MACRO × MACRO, live in a workspace. See csrc/README.md.
#pragma once

#include <algorithm>
#include <memory>
#include <new>
#include <vector>

#include "cpu/simd.h"

namespace itrd::ITRD_ISA {

constexpr int64_t PANEL = 32;           // rows of a panel: one packed block [feature][row of the panel]
constexpr int64_t MACRO = 1024;         // rows of a macro tile of W
constexpr int64_t BLOCK = 4;            // panels of a block of pairs, whose features stay in the L2 cache
constexpr int64_t FEATURE_CHUNK = 512;  // features of a block of pairs that are multiplied at a time
constexpr int64_t FEATURE_STEP = 8;     // packed features are padded to a multiple of this

template <class C>
using Buffer = std::unique_ptr<C[], void (*)(C*)>;

// Uninitialised memory that starts on a cache line.
template <class C>
Buffer<C> allocate(int64_t count) {
  constexpr std::align_val_t LINE{64};
  return {static_cast<C*>(::operator new[](std::max<int64_t>(count, 1) * sizeof(C), LINE)),
          [](C* data) { ::operator delete[](data, LINE); }};
}

// out[r][0…31] += Σ_p Σ_k a[p·a_step + r·ROW_STEP + k·K_STEP] b[p·k_end + k][0…31] for TILE_ROWS rows r: the sums stay
// in registers all along.
template <class C, int64_t ROW_STEP, int64_t K_STEP>
inline void multiply(const C* __restrict a, const C* __restrict b, int64_t k_end, C* __restrict out, int64_t panels = 1,
                     int64_t a_step = 0) {
  constexpr int64_t L = LANES<C>;
  for (int64_t c = 0; c < PANEL; c += TILE_VECTORS * L) {
    Vector<C> sum[TILE_ROWS][TILE_VECTORS];
#pragma GCC unroll 16
    for (int r = 0; r < TILE_ROWS; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < TILE_VECTORS; ++v) sum[r][v] = load<C, C>(out + r * PANEL + c + v * L);
    const C *x = a, *y = b + c;
    for (int64_t p = 0; p < panels; ++p, x += a_step)
      for (int64_t k = 0; k < k_end; ++k, y += PANEL) {
        Vector<C> column[TILE_VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < TILE_VECTORS; ++v) column[v] = load<C, C>(y + v * L);
#pragma GCC unroll 16
        for (int r = 0; r < TILE_ROWS; ++r) {
          const Vector<C> row = broadcast(x[r * ROW_STEP + k * K_STEP]);
#pragma GCC unroll 4
          for (int v = 0; v < TILE_VECTORS; ++v) sum[r][v] += row * column[v];
        }
      }
#pragma GCC unroll 16
    for (int r = 0; r < TILE_ROWS; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < TILE_VECTORS; ++v) store<C, C>(out + r * PANEL + c + v * L, sum[r][v]);
  }
}

// to[c][r] = from[r][c], both PANEL × PANEL.
template <class C>
inline void transpose_tile(const C* from, C* to) {
  constexpr int64_t L = LANES<C>;
  for (int64_t r = 0; r < PANEL; r += L)
    for (int64_t c = 0; c < PANEL; c += L) {
      Vector<C> x[L];
      for (int64_t i = 0; i < L; ++i) x[i] = load<C, C>(from + (r + i) * PANEL + c);
      transpose<C>(x);
      for (int64_t i = 0; i < L; ++i) store<C, C>(to + (c + i) * PANEL + r, x[i]);
    }
}

// ẑ = z/‖z‖ of one input, packed in panels [feature][row], and what unpacking its gradient needs.
template <class T>
struct Packed {
  using C = Wide<T>;
  const Matrix z;
  const int64_t panels, features;  // features padded to FEATURE_STEP
  Buffer<C> values;
  // 1/‖z‖ = inverse · power, the power of two kept apart because 1/‖z‖ of a tiny row can overflow; both 0 in zero rows
  std::vector<C> inverse, power;

  explicit Packed(const Matrix& z)
      : z(z),
        panels((z.rows + PANEL - 1) / PANEL),
        features((z.columns + FEATURE_STEP - 1) / FEATURE_STEP * FEATURE_STEP),
        values(allocate<C>(panels * features * PANEL)),
        inverse(panels * PANEL),
        power(panels * PANEL) {}

  int64_t panel_size() const { return features * PANEL; }
  C* panel(int64_t p) const { return values.get() + p * panel_size(); }
  bool alive(int64_t i) const { return inverse[i] != 0; }

  void norm(int64_t i) {
    constexpr int64_t L = LANES<C>;
    const T* row = z.template row<T>(i);
    Vector<C> sums[4] = {};
    int64_t k = 0;
    for (; k + 4 * L <= z.columns; k += 4 * L)
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) {
        const Vector<C> x = load<T, C>(row + k + v * L);
        sums[v] += x * x;
      }
    for (; k < z.columns; k += L) {
      const Vector<C> x = k + L <= z.columns ? load<T, C>(row + k) : load_some<T, C>(row + k, z.columns - k);
      sums[0] += x * x;
    }
    const C square = sum_lanes<C>((sums[0] + sums[1]) + (sums[2] + sums[3]));
    constexpr C LOW = std::is_same_v<C, double> ? C(1e-250) : C(1e-24),
                HIGH = std::is_same_v<C, double> ? C(1e290) : C(1e34);
    power[i] = 1;
    inverse[i] = 1 / std::sqrt(square);
    if (!(square > LOW && square < HIGH)) careful_norm(i);
  }

  // A zero row, or one whose squares left the range of C.
  __attribute__((noinline)) void careful_norm(int64_t i) {
    const T* row = z.template row<T>(i);
    double largest = 0, square = 0;
    for (int64_t k = 0; k < z.columns; ++k) largest = std::fmax(largest, std::fabs(double(to_float(row[k]))));
    int exponent = 0;
    if (largest > 0 && std::isfinite(largest)) std::frexp(largest, &exponent);
    // Half of the range of C's exponents brings even its smallest number to order one in two steps.
    exponent = std::max(exponent, std::numeric_limits<C>::min_exponent);
    for (int64_t k = 0; k < z.columns; ++k) {
      const double x = std::ldexp(double(to_float(row[k])), -exponent);
      square += x * x;
    }
    power[i] = square == 0 ? C(0) : std::ldexp(C(1), -exponent);
    inverse[i] = square == 0 ? C(0) : C(1 / std::sqrt(square));
  }

  void pack(int64_t p) {
    constexpr int64_t L = LANES<C>;
    const int64_t first = p * PANEL, rows = std::min(PANEL, z.rows - first);
    for (int64_t r = 0; r < rows; ++r) norm(first + r);
    C* const to = panel(p);
    for (int64_t k = 0; k < features; k += L)
      for (int64_t r = 0; r < PANEL; r += L) {
        Vector<C> x[L];
#pragma GCC unroll 16
        for (int64_t i = 0; i < L; ++i) {
          x[i] = Vector<C>{};
          if (r + i >= rows || k >= z.columns) continue;
          const T* from = z.template row<T>(first + r + i) + k;
          x[i] = k + L <= z.columns ? load<T, C>(from) : load_some<T, C>(from, z.columns - k);
          x[i] = x[i] * power[first + r + i] * inverse[first + r + i];
        }
        transpose<C>(x);
        const int64_t count = std::min(L, features - k);
        for (int64_t i = 0; i < count; ++i) store<C, C>(to + (k + i) * PANEL + r, x[i]);
      }
  }

  // Rows of 4(g − (g·ẑ)ẑ)/‖z‖ from panel p of g = Wẑ.
  void unpack(int64_t p, const C* g, const Matrix& result) const {
    constexpr int64_t L = LANES<C>, VECTORS = PANEL / L;
    const int64_t first = p * PANEL, rows = std::min(PANEL, z.rows - first), d = z.columns;
    const C* const own = panel(p);
    Vector<C> dot[VECTORS] = {};
    for (int64_t k = 0; k < d; ++k)
#pragma GCC unroll 16
      for (int64_t v = 0; v < VECTORS; ++v)
        dot[v] += load<C, C>(g + k * PANEL + v * L) * load<C, C>(own + k * PANEL + v * L);
    for (int64_t v = 0; v < VECTORS && v * L < rows; ++v) {
      const Vector<C> scale = 4 * load<C, C>(&inverse[first + v * L]), power_of_two = load<C, C>(&power[first + v * L]);
      for (int64_t k = 0; k < d; k += L) {
        const int64_t count = std::min(L, d - k);
        Vector<C> x[L] = {};
        for (int64_t i = 0; i < count; ++i) {
          const int64_t at = (k + i) * PANEL + v * L;
          x[i] = (load<C, C>(g + at) - dot[v] * load<C, C>(own + at)) * scale * power_of_two;
        }
        transpose<C>(x);
        for (int64_t i = 0; i < std::min(L, rows - v * L); ++i) {
          C* to = result.row<C>(first + v * L + i) + k;
          count == L ? store<C, C>(to, x[i]) : store_some<C, C>(to, x[i], count);
        }
      }
    }
  }
};

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
  for (int64_t top = macro.row_begin; top < macro.row_end; top += BLOCK)
    for (int64_t left = macro.diagonal() ? top : macro.column_begin; left < macro.column_end; left += BLOCK, ++block)
      for (int64_t p = top; p < std::min(top + BLOCK, macro.row_end); ++p)
        for (int64_t q = macro.diagonal() ? std::max(left, p) : left; q < std::min(left + BLOCK, macro.column_end); ++q)
          pairs.push_back({p, q, block});
  return pairs;
}

// W of a macro tile for one of the two gradients: once [column panel][row][32] and, transposed, [row
// panel][column][32], which on the diagonal are the same.
template <class C>
struct Weights {
  Buffer<C> by_column{nullptr, nullptr}, by_row{nullptr, nullptr};
  void reserve(int64_t rows, int64_t columns, bool both) {
    by_column = allocate<C>(rows * columns);
    if (both) by_row = allocate<C>(rows * columns);
  }
  C* tile(const Macro& m, const Pair& p) const {
    return by_column.get() + ((p.column - m.column_begin) * m.rows() + p.row - m.row_begin) * PANEL * PANEL;
  }
  C* transposed_tile(const Macro& m, const Pair& p) const {
    C* const data = m.diagonal() ? by_column.get() : by_row.get();
    return data + ((p.row - m.row_begin) * m.columns() + p.column - m.column_begin) * PANEL * PANEL;
  }
};

template <class T>
class Gram {
  using C = Wide<T>;
  struct Sums {
    double s = 0, st = 0;  // Σ G_s², Σ G_s² G_t²
  };
  struct Side {
    Packed<T> packed;
    Weights<C> weights;
    Buffer<C> gradient{nullptr, nullptr};  // Wẑ in panels
    explicit Side(const Matrix& z) : packed(z) {}
  };

  const GramProblem& problem_;
  Side s_, t_;
  const int64_t panels_;
  int threads_;
  double coefficient_s_ = 0, coefficient_st_ = 0;  // c_s, c_st: W = G_s (c_s − c_st G_t²), W' = −c_st G_s² G_t

 public:
  explicit Gram(const GramProblem& problem)
      : problem_(problem), s_(problem.s), t_(problem.t), panels_(s_.packed.panels) {
    const double operations = 2.0 * problem.s.rows * problem.s.rows * (problem.s.columns + problem.t.columns);
    threads_ = operations < 4e6 ? 1 : max_threads();
  }

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
    if (gradient) reserve();
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
  void reserve() {
    const int64_t macros = (panels_ * PANEL + MACRO - 1) / MACRO, rows = (panels_ + macros - 1) / macros * PANEL;
    auto one = [&](Side& side, const Matrix& result) {
      if (!result) return;
      side.weights.reserve(rows, rows, macros > 1);
      side.gradient = allocate<C>(panels_ * side.packed.panel_size());
    };
    one(s_, problem_.grad_s);
    one(t_, problem_.grad_t);
  }

  // Every macro tile of the upper triangle: its sums, and with `gradient` its part of Wẑ.
  Sums sweep(bool gradient) {
    const int64_t macros = (panels_ * PANEL + MACRO - 1) / MACRO, width = (panels_ + macros - 1) / macros;
    Sums total;
    for (int64_t top = 0; top < panels_; top += width)
      for (int64_t left = top; left < panels_; left += width) {
        const Macro macro{top, std::min(top + width, panels_), left, std::min(left + width, panels_)};
        const std::vector<Pair> pairs = pairs_of(macro);
        std::vector<Sums> partial(pairs.size());
        parallel(threads_, [&](int thread) {
          const Range range(pairs.size(), thread, threads_);
          form_weights(macro, pairs, range, gradient, partial);
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
                    std::vector<Sums>& partial) const {
    // G_s and G_t of the pairs of one block
    Buffer<C> tiles = allocate<C>(2 * BLOCK * BLOCK * PANEL * PANEL);
    for (int64_t begin = range.begin, end; begin < range.end; begin = end) {
      for (end = begin; end < range.end && pairs[end].block == pairs[begin].block;) ++end;
      std::fill(tiles.get(), tiles.get() + 2 * (end - begin) * PANEL * PANEL, C(0));
      products(s_.packed, pairs, begin, end, tiles.get());
      products(t_.packed, pairs, begin, end, tiles.get() + PANEL * PANEL);
      for (int64_t i = begin; i < end; ++i)
        partial[i] = epilogue(macro, pairs[i], tiles.get() + 2 * (i - begin) * PANEL * PANEL, gradient);
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
          accumulate(side, side.weights.by_column.get(), m.column_begin, m.column_end, block, m.row_begin, m.row_end,
                     step, m.row_begin == 0);
        else
          accumulate(side, side.weights.by_row.get(), m.row_begin, m.row_end, block, m.column_begin, m.column_end, step,
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
      C* const out = side.gradient.get() + p * size + offset;
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
          side.packed.unpack(p, side.gradient.get() + p * side.packed.panel_size(), result);
      });
    };
    // Unpack one side with the other's memory given back already.
    if (!problem_.grad_t) t_.packed.values.reset();
    one(s_, problem_.grad_s);
    s_.packed.values.reset();
    s_.gradient.reset();
    one(t_, problem_.grad_t);
  }
};

template <class T>
double gram_forward(const GramProblem& problem) {
  return Gram<T>(problem).run();
}

}  // namespace itrd::ITRD_ISA
