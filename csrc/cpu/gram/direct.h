// The Gram term of gram.h for few rows, on the features as they lie in memory: packing them would cost as much as a
// good part of the products. All of W is there at once.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/gram/direct_dots.h"
#include "cpu/gram/register_tile.h"
#include "cpu/gram/rows.h"
#include "cpu/gram/sweep.h"

namespace itrd::ITRD_ISA {

template <class T>
class GramDirect {
  static constexpr int64_t ENTRIES = SQUARE * SQUARE;
  static constexpr int64_t MOST_ROWS = 256, WIDTH = MOST_ROWS + 16;  // of W, whose rows start in different cache sets
  static constexpr int64_t FEATURES = 16;         // of which d is a multiple, so that no product is ragged
  static constexpr int64_t WORTH_IT = 128;        // features from which summing lanes costs less than packing
  static constexpr int64_t CACHED = 131072;       // numbers of a chunk of features of all rows, for the L2 cache
  static constexpr int64_t LONGEST_CHUNK = 1024;  // features
  static constexpr int64_t SECTION = 256;         // features whose products are summed before they are added up
  static constexpr int64_t ROWS = 8;              // of W in a task
  static constexpr int64_t TOGETHER = 8;          // tasks that share a block of features

  static_assert(FEATURES == PANEL / 2 && FEATURES % LANES<T> == 0 && ROWS % TILE_ROWS == 0 && ROWS % SQUARE == 0);

  // One input, z_i·z_j by squares of rows, and W_ij/‖z_j‖ where its gradient is wanted.
  struct Side {
    Norms<T> norms;
    Matrix result;
    Buffer<T> squares, weights, by_row, by_column;  // 1/‖z‖ of the rows of a square, and of its columns

    Side(const Matrix& z, const Matrix& result, int64_t blocks) : norms(z, blocks * SQUARE), result(result) {
      squares = allocate<T>(blocks * (blocks + 1) / 2 * ENTRIES);
      by_row = allocate<T>(blocks * ENTRIES);
      by_column = allocate<T>(blocks * ENTRIES);
      if (result) weights = allocate<T>(blocks * SQUARE * WIDTH);
    }
  };

  const int64_t n_, blocks_;  // rows, and groups of SQUARE of them, enough for whole tasks
  const int threads_;
  Side s_, t_;
  bool multiplied_ = false;  // the squares are there, for a second sweep too

 public:
  const GramProblem& problem;

  static bool suits(const GramProblem& p) {
    auto features = [&](int64_t d) { return d % FEATURES == 0 && (d >= WORTH_IT || p.s.rows < PANEL); };
    return p.s.rows <= MOST_ROWS && features(p.s.columns) && features(p.t.columns);
  }

  explicit GramDirect(const GramProblem& problem)
      : n_(problem.s.rows),
        blocks_((n_ + ROWS - 1) / ROWS * (ROWS / SQUARE)),
        threads_(threads_for(problem)),
        s_(problem.s, problem.grad_s, blocks_),
        t_(problem.t, problem.grad_t, blocks_),
        problem(problem) {}

  const Norms<T>& norms_s() const { return s_.norms; }
  const Norms<T>& norms_t() const { return t_.norms; }

  void prepare() {
    parallel(threads_, [&](int thread) {
      const Range range(blocks_, thread, threads_);
      for (Side* side : {&s_, &t_})
        for (int64_t block = range.begin; block < range.end; ++block) prepare(*side, block);
    });
  }

  // Whether no row has to be brought into range.
  bool tame() const {
    auto all = [](const Norms<T>& norms) {
      for (int64_t i = 0; i < norms.z.rows; ++i)
        if (norms.power[i] != 1 && norms.alive(i)) return false;
      return true;
    };
    return all(s_.norms) && all(t_.norms);
  }

  Sums sweep(bool gradient, Coefficients c) {
    std::vector<Sums> partial(blocks_);
    parallel(threads_, [&](int thread) {
      const int64_t begin = boundary(thread), end = boundary(thread + 1);
      if (!multiplied_) {
        products(s_, begin, end);
        products(t_, begin, end);
      }
      for (int64_t i = begin; i < end; ++i) partial[i] = epilogue(i, gradient, c);
    });
    multiplied_ = true;
    Sums total;
    for (const Sums& sums : partial) total.s += sums.s, total.st += sums.st;
    if (gradient && s_.result) multiply_weights(s_);
    if (gradient && t_.result) multiply_weights(t_);
    return total;
  }

 private:
  static void prepare(Side& side, int64_t block) {
    for (int64_t i = block * SQUARE; i < std::min((block + 1) * SQUARE, side.norms.z.rows); ++i) side.norms.norm(i);
    const T* const inverse = &side.norms.inverse[block * SQUARE];
    for (int64_t i = 0; i < ENTRIES; ++i) {
      side.by_row[block * ENTRIES + i] = inverse[i / SQUARE];
      side.by_column[block * ENTRIES + i] = inverse[i % SQUARE];
    }
  }

  // The squares (i, j ≥ i) of block row i lie one after the other.
  int64_t square(int64_t i, int64_t j) const { return (i * (2 * blocks_ - i + 1) / 2 + j - i) * ENTRIES; }

  // The block row at which a thread begins: each has as many squares, as far as whole rows allow.
  int64_t boundary(int thread) const {
    const int64_t all = blocks_ * (blocks_ + 1) / 2;
    int64_t i = 0;
    while (i < blocks_ && square(i, i) / ENTRIES < all * thread / threads_) ++i;
    return thread == threads_ ? blocks_ : i;
  }

  // z_i·z_j of block rows [begin, end) and the columns from the diagonal on.
  void products(Side& side, int64_t begin, int64_t end) const {
    const Matrix& z = side.norms.z;
    const int64_t chunk = std::clamp(CACHED / (blocks_ * SQUARE), FEATURES, LONGEST_CHUNK) / FEATURES * FEATURES;
    alignas(64) T own[SQUARE][LONGEST_CHUNK + FEATURES];
    for (int64_t k = 0; k < z.columns; k += chunk) {
      const int64_t count = std::min(chunk, z.columns - k);
      // Rows that do not exist are the last once more; their norms make nothing of them.
      auto row = [&](int64_t i) { return z.row<T>(std::min(i, n_ - 1)) + k; };
      for (int64_t i = begin; i < end; ++i) {
        // A copy, since rows a page's stride apart would evict each other.
        for (int64_t r = 0; r < SQUARE; ++r) std::copy_n(row(i * SQUARE + r), count, own[r]);
        T* to = side.squares.get() + square(i, i);
        for (int64_t j = i; j < blocks_; ++j, to += ENTRIES)
          dots<T>({own[0], own[1], own[2], own[3]},
                  {row(j * SQUARE), row(j * SQUARE + 1), row(j * SQUARE + 2), row(j * SQUARE + 3)}, count, to, k > 0);
      }
    }
  }

  static Sixteen<T> sixteen(const T* from) {
    Sixteen<T> x;
    std::memcpy(&x, from, sizeof x);
    return x;
  }

  // Sums of block row i, and with `gradient` its W and W', and what they are in the rows below the diagonal.
  Sums epilogue(int64_t i, bool gradient, Coefficients c) {
    using V = Sixteen<T>;
    constexpr V OFF_DIAGONAL = {0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 0};
    const V c_s = T(c.s) - V{}, c_st = T(c.st) - V{};
    V sum_s{}, sum_st{}, on_s{}, on_st{};
    for (int64_t j = i; j < blocks_; ++j) {
      V g = cosines(s_, i, j), h = cosines(t_, i, j), w_s, w_t;
      // W_ii ẑ_i is parallel to ẑ_i, which the projection removes; the sums' own diagonal is counted by the traces.
      if (i == j) g *= OFF_DIAGONAL, h *= OFF_DIAGONAL;
      mutual_information(g, h, c_s, c_st, sum_s, sum_st, w_s, w_t);
      if (i == j) on_s = sum_s, on_st = sum_st;
      if (gradient && s_.result) keep(s_, i, j, w_s);
      if (gradient && t_.result) keep(t_, i, j, w_t);
    }
    // The entries off the diagonal's square count twice.
    auto sum = [](const V& x, const V& on) {
      double total = 0;
      for (int64_t k = 0; k < ENTRIES; ++k) total += 2 * double(x[k]) - double(on[k]);
      return total;
    };
    return {sum(sum_s, on_s), sum(sum_st, on_st)};
  }

  Sixteen<T> cosines(const Side& side, int64_t i, int64_t j) const {
    return sixteen(side.squares.get() + square(i, j)) * sixteen(side.by_row.get() + i * ENTRIES) *
           sixteen(side.by_column.get() + j * ENTRIES);
  }

  static void keep(Side& side, int64_t i, int64_t j, Sixteen<T> w) {
    auto write = [&](int64_t row, int64_t column, const Sixteen<T>& x) {
      T* const to = side.weights.get() + row * SQUARE * WIDTH + column * SQUARE;
      for (int64_t r = 0; r < SQUARE; ++r)
        std::memcpy(to + r * WIDTH, reinterpret_cast<const T*>(&x) + r * SQUARE, SQUARE * sizeof(T));
    };
    write(i, j, w * sixteen(side.by_column.get() + j * ENTRIES));
    if (i != j) write(j, i, turned<T>(w * sixteen(side.by_row.get() + i * ENTRIES)));
  }

  // The gradient of a few rows at a time: their product Wz, block by block of the features, then the projection.
  void multiply_weights(const Side& side) const {
    const int64_t tasks = blocks_ * SQUARE / ROWS;
    parallel(threads_, [&](int thread) {
      const Range range(tasks, thread, threads_);
      for (int64_t task = range.begin; task < range.end; task += TOGETHER) {
        const int64_t begin = task * ROWS, end = std::min(std::min(task + TOGETHER, range.end) * ROWS, n_);
        alignas(64) Vector<T> along[TOGETHER * ROWS] = {};
        // By sections, so that a long row keeps its digits.
        for (int64_t section = 0; section < side.norms.z.columns; section += SECTION) {
          alignas(64) Vector<T> part[TOGETHER * ROWS] = {};
          for (int64_t f = section; f < std::min(section + SECTION, side.norms.z.columns); f += PANEL) {
            if (side.norms.z.columns - f < PANEL)
              this->template product<PANEL / 2>(side, begin, end, f, part);
            else
              this->template product<PANEL>(side, begin, end, f, part);
          }
          for (int64_t i = 0; i < TOGETHER * ROWS; ++i) along[i] += part[i];
        }
        for (int64_t i = begin; i < end; ++i) project(side, i, sum_lanes<T>(along[i - begin]));
      }
    });
  }

  // g_i = Σ_k W_ik z_k of rows [begin, end), COUNT features from f on, and what they add to g_i·z_i.
  template <int64_t COUNT>
  void product(const Side& side, int64_t begin, int64_t end, int64_t f, Vector<T>* along) const {
    const Matrix& z = side.norms.z;
    for (int64_t i = begin; i < end; i += TILE_ROWS)
      multiply<T, WIDTH, 1, COUNT>(
          side.weights.get() + i * WIDTH, z.row<T>(0) + f, n_,
          [&](int64_t r, int64_t c, Vector<T> g) {
            if (i + r >= end) return;
            along[i - begin + r] += g * load<T, T>(z.row<T>(i + r) + f + c);
            store<T, T>(side.result.template row<T>(i + r) + f + c, g);
          },
          1, 0, z.stride);
  }

  // g becomes 4(g − (g·ẑ)ẑ)/‖z‖, given g·z.
  static void project(const Side& side, int64_t i, T along) {
    const Norms<T>& norms = side.norms;
    const T inverse = norms.inverse[i], share = along * inverse * inverse, scale = 4 * inverse;
    const T* const z = norms.z.template row<T>(i);
    T* const to = side.result.template row<T>(i);
    for (int64_t k = 0; k < norms.z.columns; k += LANES<T>)
      store<T, T>(to + k, (load<T, T>(to + k) - share * load<T, T>(z + k)) * scale);
  }
};

}  // namespace itrd::ITRD_ISA
