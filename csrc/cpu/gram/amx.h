// The Gram term of gram.h on AMX tiles: the same macro tiles of W, with every product taken of bytes.
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

// Of a product Wẑ: panels and blocks of 32 features of a task, and panels of rows that are summed at a time.
constexpr int64_t GROUP_PANELS = 16, SECTION_BLOCKS = 8, CHUNK_PANELS = CHUNK / PANEL;

template <class T>
class GramTiles : public GramPlan {
  static constexpr int S = DIGITS<T>;
  static constexpr int64_t TILE = PANEL * PANEL, OPERAND = Digits<T>::CHUNK_BYTES;
  // W_ij unit_j of 32 × 32 pairs and, behind it, Σ_j W_ij G_ij of each row.
  static constexpr int64_t WEIGHTS = TILE + PANEL;

  // One input and, where its gradient is wanted, W of the macro tile at hand: [row panel][column panel] and, of the
  // transposed tile, [column panel][row panel], which on the diagonal are the same.
  struct Side {
    Digits<T> digits;
    Matrix result;
    Buffer<float> weights, transposed;
    std::vector<double> along;  // g_i·ẑ_i = Σ_j W_ij G_ij of each row, as far as W has been formed

    Side(const Matrix& z, const Matrix& result, const Panels& panels) : digits(z), result(result) {
      const int64_t size = panels.side * panels.side * WEIGHTS;
      if (result) weights = allocate<float>(size);
      if (result && panels.macros > 1) transposed = allocate<float>(size);
      if (result) along.resize(panels.count * PANEL);
    }
  };

  Side s_, t_;
  Buffer<float> tiles_;      // of each thread: G_s and G_t of the pairs of one block, or Wẑ of one task
  Buffer<int8_t> operands_;  // of each thread: a chunk of what it multiplies

 public:
  static constexpr int64_t PAIR_BLOCK = 16;  // panels on a side of a block of pairs, which are taken apart together

  explicit GramTiles(const GramProblem& problem)
      : GramPlan(problem),
        s_(problem.s, problem.grad_s, panels),
        t_(problem.t, problem.grad_t, panels),
        tiles_(allocate<float>(threads * tiles_size())),
        operands_(allocate<int8_t>(threads * OPERANDS)) {}

  const Norms<T>& norms_s() const { return s_.digits; }
  const Norms<T>& norms_t() const { return t_.digits; }

  void prepare() {
    parallel(threads, [&](int thread) {
      const Range range(problem.s.rows, thread, threads);
      for (Side* side : {&s_, &t_})
        for (int64_t i = range.begin; i < range.end; ++i) side->digits.measure(i);
    });
  }

  // Whether the digits are enough for these inputs.
  bool accurate() const { return s_.digits.accurate() && t_.digits.accurate(); }

  Sums sweep(bool gradient, Coefficients c) { return sweep_macros(*this, gradient, c); }

  // Sums of the pairs, and with `gradient` their W.
  void form_weights(const Macro& macro, const std::vector<Pair>& pairs, const Range& range, bool gradient,
                    Coefficients c, std::vector<Sums>& partial, int thread) const {
    Multiplier<S> tiles;
    float* const tiles_s = tiles_.get() + thread * tiles_size();
    int8_t* const operands = operands_.get() + thread * OPERANDS;
    for (int64_t begin = range.begin, end; begin < range.end; begin = end) {
      for (end = begin; end < range.end && pairs[end].block == pairs[begin].block;) ++end;
      float* const tiles_t = tiles_s + (end - begin) * TILE;
      products(s_.digits, pairs, begin, end, operands, tiles, tiles_s);
      products(t_.digits, pairs, begin, end, operands, tiles, tiles_t);
      tiles.finish();
      for (int64_t i = begin; i < end; ++i) {
        const int64_t at = (i - begin) * TILE;
        partial[i] = epilogue(macro, pairs[i], tiles_s + at, tiles_t + at, gradient, c);
      }
    }
  }

  void multiply_weights(const Macro& macro) {
    if (s_.result) multiply_weights(macro, s_);
    if (t_.result) multiply_weights(macro, t_);
  }

 private:
  static constexpr int64_t OPERANDS = std::max(PAIR_BLOCK + 2, GROUP_PANELS + SECTION_BLOCKS) * OPERAND;

  int64_t tiles_size() const {
    return std::max(2 * std::min(PAIR_BLOCK * PAIR_BLOCK, panels.count * panels.count), GROUP_PANELS * SECTION_BLOCKS) *
           TILE;
  }

  // zzᵀ of pairs [begin, end) of one block, times unit_i of its rows.
  static void products(const Digits<T>& z, const std::vector<Pair>& pairs, int64_t begin, int64_t end, int8_t* operands,
                       Multiplier<S>& tiles, float* to) {
    int64_t row = pairs[begin].row, row_end = row;
    for (int64_t i = begin; i < end; ++i) {
      row = std::min(row, pairs[i].row);
      row_end = std::max(row_end, pairs[i].row + 1);
    }
    int8_t *const right = operands, *const other = right + OPERAND, *const lefts = other + OPERAND;
    for (int64_t k = 0; k < z.steps; k += CHUNK_STEPS) {
      const int64_t count = std::min(CHUNK_STEPS, z.steps - k);
      auto left = [&](int64_t p) { return lefts + (p - row) * OPERAND; };
      for (int64_t p = row; p < row_end; ++p) z.split_rows(p, k, count, left(p));
      for (int64_t i = begin; i < end;) {
        const int64_t q = pairs[i].column;
        const bool also_left = row <= q && q < row_end;
        if (!also_left) z.split_rows(q, k, count, other);
        z.turn_rows(also_left ? left(q) : other, count, right);
        for (; i < end && pairs[i].column == q; ++i)
          tiles.multiply(left(pairs[i].row), right, count, &z.unit[pairs[i].row * PANEL], to + (i - begin) * TILE,
                         k > 0);
      }
    }
  }

  // Sums of a pair's tiles, and with `gradient` its W and W'.
  Sums epilogue(const Macro& m, const Pair& pair, float* g_s, float* g_t, bool gradient, Coefficients c) const {
    using V = Vector<float>;
    const bool diagonal = pair.row == pair.column, want_s = gradient && s_.result, want_t = gradient && t_.result;
    const float *const s_j = &s_.digits.unit[pair.column * PANEL], *const t_j = &t_.digits.unit[pair.column * PANEL];
    const V c_s = broadcast(float(c.s)), c_st = broadcast(float(c.st));
    V sum_s{}, sum_st{};
    Along along_s, along_t;
    for (int64_t i = 0; i < PANEL; ++i) {
      V row_s{}, row_t{};
      for (int64_t j = 0; j < PANEL; j += 16) {
        float *const at_s = g_s + i * PANEL + j, *const at_t = g_t + i * PANEL + j;
        V g = load<float, float>(at_s) * load<float, float>(s_j + j);
        V h = load<float, float>(at_t) * load<float, float>(t_j + j);
        // W_ii ẑ_i is parallel to ẑ_i, which the projection removes; the sums' own diagonal is counted by the traces.
        if (diagonal && i >= j && i < j + 16) g[i - j] = 0, h[i - j] = 0;
        V w_s, w_t;
        mutual_information(g, h, c_s, c_st, sum_s, sum_st, w_s, w_t);
        if (want_s) row_s += along_s.add(j, at_s, w_s, g);
        if (want_t) row_t += along_t.add(j, at_t, w_t, h);
      }
      if (want_s) along_s.rows[i] = sum_lanes<float>(row_s);
      if (want_t) along_t.rows[i] = sum_lanes<float>(row_t);
    }
    if (want_s) keep(s_, m, pair, g_s, along_s);
    if (want_t) keep(t_, m, pair, g_t, along_t);
    const double twice = diagonal ? 1 : 2;
    return {twice * sum_lanes<float>(sum_s), twice * sum_lanes<float>(sum_st)};
  }

  // Σ_j W_ij G_ij and Σ_i W_ij G_ij of a pair, whose W takes the place of its G.
  struct Along {
    alignas(64) float rows[PANEL] = {}, columns[PANEL] = {};
    Vector<float> add(int64_t j, float* at, Vector<float> w, Vector<float> g) {
      store<float, float>(at, w);
      store<float, float>(columns + j, load<float, float>(columns + j) + w * g);
      return w * g;
    }
  };

  // A pair's W for its rows and, transposed, for its columns.
  static void keep(const Side& side, const Macro& m, const Pair& pair, const float* w, const Along& along) {
    const float* const unit = side.digits.unit.data();
    const int64_t i = pair.row - m.row_begin, j = pair.column - m.column_begin;
    store_weights(w, unit + pair.column * PANEL, along.rows, side.weights.get() + (i * m.columns() + j) * WEIGHTS);
    if (pair.row == pair.column) return;
    alignas(64) float turned[TILE];
    transpose_tile(w, turned);
    const Buffer<float>& to = m.diagonal() ? side.weights : side.transposed;
    store_weights(turned, unit + pair.row * PANEL, along.columns, to.get() + (j * m.rows() + i) * WEIGHTS);
  }

  static void store_weights(const float* w, const float* unit, const float* along, float* to) {
    for (int64_t i = 0; i < TILE; i += 16)
      store<float, float>(to + i, load<float, float>(w + i) * load<float, float>(unit + i % PANEL));
    std::copy_n(along, PANEL, to + TILE);
  }

  // Σ_j W_ij G_ij of `count` row panels from `begin`, over `terms` column panels.
  static void add_along(Side& side, const float* weights, int64_t begin, int64_t count, int64_t terms) {
    for (int64_t p = 0; p < count * terms; ++p)
      for (int64_t r = 0; r < PANEL; ++r)
        side.along[(begin + p / terms) * PANEL + r] += weights[p * WEIGHTS + TILE + r];
  }

  // Wẑ of the macro tile's rows and, off the diagonal, Wᵀẑ of its columns.
  void multiply_weights(const Macro& m, Side& side) const {
    add_along(side, side.weights.get(), m.row_begin, m.rows(), m.columns());
    if (!m.diagonal()) add_along(side, side.transposed.get(), m.column_begin, m.columns(), m.rows());
    const int64_t blocks = (side.digits.z.columns + PANEL - 1) / PANEL;
    auto groups = [](int64_t panels) { return (panels + GROUP_PANELS - 1) / GROUP_PANELS; };
    const int64_t row_groups = groups(m.rows()), all_groups = row_groups + (m.diagonal() ? 0 : groups(m.columns()));
    const int64_t sections = std::max((blocks + SECTION_BLOCKS - 1) / SECTION_BLOCKS,
                                      std::min(blocks, (threads + all_groups - 1) / all_groups));
    parallel(threads, [&](int thread) {
      Multiplier<S> tiles;
      const Range range(all_groups * sections, thread, threads);
      for (int64_t task = range.begin; task < range.end; ++task) {
        const int64_t group = task / sections;
        const Range section(blocks, task % sections, sections);
        if (group < row_groups)
          accumulate(side, side.weights.get(), m.row_begin, Range(m.rows(), group, row_groups), m.column_begin,
                     m.columns(), section, m.diagonal() && m.row_begin == 0, m.column_end == panels.count, tiles,
                     thread);
        else
          accumulate(side, side.transposed.get(), m.column_begin,
                     Range(m.columns(), group - row_groups, all_groups - row_groups), m.row_begin, m.rows(), section,
                     m.row_begin == 0, false, tiles, thread);
      }
    });
  }

  // result[i] = or += Σ_k W_ik z_k, i in `group` of the panels from `begin`, k in the `terms` panels from `from`, for
  // one section of the features; what is `complete` then is projected.
  void accumulate(const Side& side, const float* weights, int64_t begin, const Range& group, int64_t from,
                  int64_t terms, const Range& section, bool first, bool complete, Multiplier<S>& tiles,
                  int thread) const {
    const Digits<T>& z = side.digits;
    int8_t *const lefts = operands_.get() + thread * OPERANDS, *const rights = lefts + GROUP_PANELS * OPERAND;
    float* const sums = tiles_.get() + thread * tiles_size();
    alignas(64) float scale[GROUP_PANELS * PANEL];
    std::vector<Outlier> outliers;
    const int64_t blocks = section.end - section.begin;
    for (int64_t k = 0; k < terms; k += CHUNK_PANELS) {
      const int64_t panels = std::min(CHUNK_PANELS, terms - k), steps = (panels + 1) / 2;
      outliers.clear();
      for (int64_t p = group.begin; p < group.end; ++p)
        split_weights(weights + (p * terms + k) * WEIGHTS, panels, lefts + (p - group.begin) * OPERAND,
                      scale + (p - group.begin) * PANEL, (p - group.begin) * PANEL, (from + k) * PANEL, outliers);
      z.split_columns(from + k, panels, section, rights);
      for (int64_t f = 0; f < blocks; ++f)
        for (int64_t p = 0; p < group.end - group.begin; ++p)
          tiles.multiply(lefts + p * OPERAND, rights + f * OPERAND, steps, scale + p * PANEL,
                         sums + (p * blocks + f) * TILE, k > 0);
      tiles.finish();
      add_outliers(z, outliers, section, sums);
    }
    for (int64_t p = group.begin; p < group.end; ++p)
      z.store_panel(sums + (p - group.begin) * blocks * TILE, begin + p, section, side.result, !first,
                    complete ? &side.along[(begin + p) * PANEL] : nullptr);
  }

  // Left operand of Wz: 32 rows of `panels` tiles of W_ij unit_j, and what their integers count, row by row. An entry
  // that would leave the others few digits, as of two views of one sample, is left to `outliers`.
  static void split_weights(const float* w, int64_t panels, int8_t* left, float* scale, int64_t first_row,
                            int64_t first_column, std::vector<Outlier>& outliers) {
    const int64_t steps = (panels + 1) / 2;
    alignas(64) float rest[CHUNK];
    for (int64_t r = 0; r < PANEL; ++r, w += PANEL) {
      Ints most{};
      Vector<float> squares{};
      for (int64_t p = 0; p < panels; ++p)
        for (int64_t v = 0; v < PANEL; v += 16) {
          const Vector<float> x = load<float, float>(w + p * WEIGHTS + v);
          most = larger(most, magnitude(x));
          squares += x * x;
        }
      float largest = largest_lane(most);
      const float* row = w;
      int64_t row_step = WEIGHTS;
      if (dominates(largest, sum_lanes<float>(squares), panels * PANEL)) [[unlikely]] {
        for (int64_t p = 0; p < panels; ++p) std::copy_n(w + p * WEIGHTS, PANEL, rest + p * PANEL);
        largest = take_out(rest, panels * PANEL, first_row + r, first_column, outliers);
        row = rest;
        row_step = PANEL;
      }
      const float factor = largest == 0 ? 0 : LARGEST<S> / largest;
      scale[r] = largest * (FIRST<S> / LARGEST<S>);
      int8_t* const to = left + r / 16 * steps * S * TILE_BYTES + r % 16 * STEP;
      for (int64_t i = 0; i < steps; ++i) {
        Vector<float> x[4] = {};
        for (int v = 0; v < 4; ++v)
          if (2 * i + v / 2 < panels) x[v] = load<float, float>(row + (2 * i + v / 2) * row_step + v % 2 * 16) * factor;
        Ints digits[S];
        row_digits<S>(x, digits);
        store_digits<S>(digits, to + i * S * TILE_BYTES, TILE_BYTES);
      }
    }
  }
};

}  // namespace itrd::ITRD_ISA
