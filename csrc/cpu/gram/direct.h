// The Gram engine for few rows, on the features as they lie in memory: packing them would cost as much as a good part
// of the products. All of W is there at once.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/gram/direct_dots.h"
#include "cpu/gram/register_tile.h"
#include "cpu/gram/rows.h"
#include "cpu/gram/sweep.h"

namespace itrd::ITRD_ISA {

template <class T>
class DirectGram {
  static constexpr int64_t kSquareEntries = kSquare * kSquare;
  static constexpr int64_t kMostRows = 256;                 // of the inputs
  static constexpr int64_t kWeightStride = kMostRows + 16;  // of W, whose rows start in different cache sets
  static constexpr int64_t kFeatureMultiple = 16;           // of which d is a multiple, so that no product is ragged
  static constexpr int64_t kFewestFeatures = 128;           // from which on summing lanes costs less than packing
  static constexpr int64_t kCachedNumbers = 131072;         // of a chunk of features of all rows, for the L2 cache
  static constexpr int64_t kLongestChunk = 1024;            // features of a chunk
  static constexpr int64_t kSectionFeatures = 256;          // whose products are summed before they are added up
  static constexpr int64_t kTaskRows = 8;                   // of W in a task
  static constexpr int64_t kTasksTogether = 8;              // that share a strip of features

  static_assert(kFeatureMultiple == kPanel / 2 && kFeatureMultiple % kLanes<T> == 0 && kTaskRows % kRegisterRows == 0 &&
                kTaskRows % kSquare == 0);

  // One input; z_i·z_j in squares of kSquare × kSquare pairs of rows, of the upper triangle; and all of W_ij/‖z_j‖,
  // where its gradient is wanted, else null.
  struct Side {
    RowNorms<T> norms;
    Matrix result;  // the gradient
    Buffer<T> squares, weights;
    Buffer<T> by_row, by_column;  // of each group: 1/‖z‖ of the rows of a square, and of its columns

    Side(const Matrix& z, const Matrix& result, int64_t groups) : norms(z, groups * kSquare), result(result) {
      squares = allocate<T>(groups * (groups + 1) / 2 * kSquareEntries);
      by_row = allocate<T>(groups * kSquareEntries);
      by_column = allocate<T>(groups * kSquareEntries);
      if (result) weights = allocate<T>(groups * kSquare * kWeightStride);
    }
  };

  const int64_t n_, groups_;  // rows, and groups of kSquare of them, as many as whole tasks have
  const int threads_;
  Side s_, t_;
  bool multiplied_ = false;  // the squares are there, for a second sweep too

 public:
  const GramProblem& problem;

  // Whether the engine takes these inputs, and is worth it.
  static bool suits(const GramProblem& p) {
    auto features = [&](int64_t d) { return d % kFeatureMultiple == 0 && (d >= kFewestFeatures || p.s.rows < kPanel); };
    return p.s.rows <= kMostRows && features(p.s.columns) && features(p.t.columns);
  }

  explicit DirectGram(const GramProblem& problem)
      : n_(problem.s.rows),
        groups_((n_ + kTaskRows - 1) / kTaskRows * (kTaskRows / kSquare)),
        threads_(threads_for(problem)),
        s_(problem.s, problem.dgram_s, groups_),
        t_(problem.t, problem.dgram_t, groups_),
        problem(problem) {}

  const RowNorms<T>& norms_s() const { return s_.norms; }
  const RowNorms<T>& norms_t() const { return t_.norms; }

  void prepare() {
    parallel(threads_, [&](int thread) {
      const Range range(groups_, thread, threads_);
      for (Side* side : {&s_, &t_})
        for (int64_t group = range.begin; group < range.end; ++group) prepare(*side, group);
    });
  }

  // Whether no row is extreme, which has to be brought into range.
  bool ordinary() const {
    auto all = [](const RowNorms<T>& norms) {
      for (int64_t i = 0; i < norms.z.rows; ++i)
        if (norms.power[i] != 1 && norms.alive(i)) return false;
      return true;
    };
    return all(s_.norms) && all(t_.norms);
  }

  Sums sweep(bool gradient, Coefficients c) {
    std::vector<Sums> partial(groups_);
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
  static void prepare(Side& side, int64_t group) {
    for (int64_t i = group * kSquare; i < std::min((group + 1) * kSquare, side.norms.z.rows); ++i) side.norms.norm(i);
    const T* const inverse = &side.norms.inverse[group * kSquare];
    for (int64_t i = 0; i < kSquareEntries; ++i) {
      side.by_row[group * kSquareEntries + i] = inverse[i / kSquare];
      side.by_column[group * kSquareEntries + i] = inverse[i % kSquare];
    }
  }

  // Where square (i, j) is, j ≥ i: those of a row of squares lie one after the other.
  int64_t square(int64_t i, int64_t j) const { return (i * (2 * groups_ - i + 1) / 2 + j - i) * kSquareEntries; }

  // The row of squares at which a thread begins. Each thread has as many squares, as far as whole rows of them allow.
  int64_t boundary(int thread) const {
    const int64_t all = groups_ * (groups_ + 1) / 2;
    int64_t i = 0;
    while (i < groups_ && square(i, i) / kSquareEntries < all * thread / threads_) ++i;
    return thread == threads_ ? groups_ : i;
  }

  // z_i·z_j of rows [begin, end) of squares, from the diagonal on.
  void products(Side& side, int64_t begin, int64_t end) const {
    const Matrix& z = side.norms.z;
    const int64_t chunk = std::clamp(kCachedNumbers / (groups_ * kSquare), kFeatureMultiple, kLongestChunk) /
                          kFeatureMultiple * kFeatureMultiple;
    alignas(64) T own[kSquare][kLongestChunk + kFeatureMultiple];
    for (int64_t k = 0; k < z.columns; k += chunk) {
      const int64_t count = std::min(chunk, z.columns - k);
      // Rows that do not exist are the last once more; their norms make nothing of them.
      auto row = [&](int64_t i) { return z.row<T>(std::min(i, n_ - 1)) + k; };
      for (int64_t i = begin; i < end; ++i) {
        // A copy, since rows a page's stride apart would evict each other.
        for (int64_t r = 0; r < kSquare; ++r) std::copy_n(row(i * kSquare + r), count, own[r]);
        T* to = side.squares.get() + square(i, i);
        for (int64_t j = i; j < groups_; ++j, to += kSquareEntries)
          dots<T>({own[0], own[1], own[2], own[3]},
                  {row(j * kSquare), row(j * kSquare + 1), row(j * kSquare + 2), row(j * kSquare + 3)}, count, to,
                  k > 0);
      }
    }
  }

  // The numbers of a square.
  static Sixteen<T> sixteen(const T* from) {
    Sixteen<T> x;
    std::memcpy(&x, from, sizeof x);
    return x;
  }

  // Sums of row i of squares and, with `gradient`, its W and W', and the same below the diagonal.
  Sums epilogue(int64_t i, bool gradient, Coefficients c) {
    using V = Sixteen<T>;
    constexpr V off_diagonal = {0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 0};
    const V c_s = T(c.s) - V{}, c_st = T(c.st) - V{};
    V sum_s{}, sum_st{}, on_s{}, on_st{};
    for (int64_t j = i; j < groups_; ++j) {
      V g = cosines(s_, i, j), h = cosines(t_, i, j), w_s, w_t;
      // W_ii ẑ_i is parallel to ẑ_i, which the projection removes; the diagonal's part of the sums is in the traces.
      if (i == j) g *= off_diagonal, h *= off_diagonal;
      mutual_information(g, h, c_s, c_st, sum_s, sum_st, w_s, w_t);
      if (i == j) on_s = sum_s, on_st = sum_st;
      if (gradient && s_.result) keep(s_, i, j, w_s);
      if (gradient && t_.result) keep(t_, i, j, w_t);
    }
    // Squares off the diagonal count twice.
    auto sum = [](const V& x, const V& on) {
      double total = 0;
      for (int64_t k = 0; k < kSquareEntries; ++k) total += 2 * double(x[k]) - double(on[k]);
      return total;
    };
    return {sum(sum_s, on_s), sum(sum_st, on_st)};
  }

  // Square (i, j) of G.
  Sixteen<T> cosines(const Side& side, int64_t i, int64_t j) const {
    return sixteen(side.squares.get() + square(i, j)) * sixteen(side.by_row.get() + i * kSquareEntries) *
           sixteen(side.by_column.get() + j * kSquareEntries);
  }

  // Keeps square (i, j) of W and, transposed, (j, i).
  static void keep(Side& side, int64_t i, int64_t j, Sixteen<T> w) {
    auto write = [&](int64_t row, int64_t column, const Sixteen<T>& x) {
      T* const to = side.weights.get() + row * kSquare * kWeightStride + column * kSquare;
      for (int64_t r = 0; r < kSquare; ++r)
        std::memcpy(to + r * kWeightStride, reinterpret_cast<const T*>(&x) + r * kSquare, kSquare * sizeof(T));
    };
    write(i, j, w * sixteen(side.by_column.get() + j * kSquareEntries));
    if (i != j) write(j, i, transposed<T>(w * sixteen(side.by_row.get() + i * kSquareEntries)));
  }

  // The gradient of a few rows at a time: their product Wz, strip by strip of the features, then the projection.
  void multiply_weights(const Side& side) const {
    const int64_t tasks = groups_ * kSquare / kTaskRows;
    parallel(threads_, [&](int thread) {
      const Range range(tasks, thread, threads_);
      for (int64_t task = range.begin; task < range.end; task += kTasksTogether) {
        const int64_t begin = task * kTaskRows,
                      end = std::min(std::min(task + kTasksTogether, range.end) * kTaskRows, n_);
        alignas(64) Vector<T> projection[kTasksTogether * kTaskRows] = {};
        // By sections, so that a long row keeps its digits.
        for (int64_t section = 0; section < side.norms.z.columns; section += kSectionFeatures) {
          alignas(64) Vector<T> part[kTasksTogether * kTaskRows] = {};
          for (int64_t f = section; f < std::min(section + kSectionFeatures, side.norms.z.columns); f += kPanel) {
            if (side.norms.z.columns - f < kPanel)
              this->template product<kPanel / 2>(side, begin, end, f, part);
            else
              this->template product<kPanel>(side, begin, end, f, part);
          }
          for (int64_t i = 0; i < kTasksTogether * kTaskRows; ++i) projection[i] += part[i];
        }
        for (int64_t i = begin; i < end; ++i) project(side, i, sum_lanes<T>(projection[i - begin]));
      }
    });
  }

  // g_i = Σ_k W_ik z_k of rows [begin, end), `count` features from f on, and what these add to g_i·z_i.
  template <int64_t count>
  void product(const Side& side, int64_t begin, int64_t end, int64_t f, Vector<T>* projection) const {
    const Matrix& z = side.norms.z;
    for (int64_t i = begin; i < end; i += kRegisterRows)
      multiply<T, kWeightStride, 1, count>(
          side.weights.get() + i * kWeightStride, z.row<T>(0) + f, n_,
          [&](int64_t r, int64_t c, Vector<T> g) {
            if (i + r >= end) return;
            projection[i - begin + r] += g * load<T, T>(z.row<T>(i + r) + f + c);
            store<T, T>(side.result.template row<T>(i + r) + f + c, g);
          },
          1, 0, z.stride);
  }

  // g_i becomes 4(g_i − (g_i·ẑ_i) ẑ_i)/‖z_i‖, given g_i·z_i.
  static void project(const Side& side, int64_t i, T projection) {
    const RowNorms<T>& norms = side.norms;
    const T inverse = norms.inverse[i], share = projection * inverse * inverse, scale = 4 * inverse;
    const T* const z = norms.z.template row<T>(i);
    T* const to = side.result.template row<T>(i);
    for (int64_t k = 0; k < norms.z.columns; k += kLanes<T>)
      store<T, T>(to + k, (load<T, T>(to + k) - share * load<T, T>(z + k)) * scale);
  }
};

}  // namespace itrd::ITRD_ISA
