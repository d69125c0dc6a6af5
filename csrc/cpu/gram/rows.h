// The norms of the rows of one input.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/simd/load_store.h"

namespace itrd::ITRD_ISA {

// 1/‖z‖ = inverse · power of each row, and of the rows that pad the last panel. The power of two is kept apart, since
// 1/‖z‖ of a tiny row can overflow: it is 1 in ordinary rows. Both are 0 in zero rows and in the padding.
template <class T>
struct RowNorms {
  using C = Wide<T>;
  const Matrix z;
  std::vector<C> inverse, power;

  RowNorms(const Matrix& z, int64_t padded_rows) : z(z), inverse(padded_rows), power(padded_rows) {}

  // Whether row i is not zero.
  bool alive(int64_t i) const { return inverse[i] != 0; }

  // Takes the norm of row i.
  void norm(int64_t i) {
    norm(i, [](Vector<C>) {});
  }

  // The same, with each(x) for every vector x of the row.
  template <class F>
  void norm(int64_t i, F&& each) {
    const T* row = z.template row<T>(i);
    // Sections add up in double, so that a long row keeps its digits.
    double square = 0;
    for (int64_t k = 0; k < z.columns; k += kSectionFeatures)
      square += sum_squares(row + k, std::min(kSectionFeatures, z.columns - k), each);
    constexpr double low = std::is_same_v<C, double> ? 1e-250 : 1e-24, high = std::is_same_v<C, double> ? 1e290 : 1e34;
    power[i] = 1;
    inverse[i] = C(1 / std::sqrt(square));
    if (!(square > low && square < high)) extreme_norm(i);
  }

  // The norm of an extreme row: a zero row, or one whose squares left the range of C.
  __attribute__((noinline)) void extreme_norm(int64_t i) {
    const T* row = z.template row<T>(i);
    double largest = 0, square = 0;
    for (int64_t k = 0; k < z.columns; ++k) largest = std::fmax(largest, std::fabs(double(to_float(row[k]))));
    int exponent = 0;
    if (largest > 0 && std::isfinite(largest)) std::frexp(largest, &exponent);
    // Half of the range of C's exponents brings even its smallest number to order one in two steps.
    constexpr int limit = std::numeric_limits<C>::max_exponent - 2;
    exponent = std::clamp(exponent, -limit, limit);
    for (int64_t k = 0; k < z.columns; ++k) {
      const double x = std::ldexp(double(to_float(row[k])), -exponent);
      square += x * x;
    }
    power[i] = square == 0 ? C(0) : std::ldexp(C(1), -exponent);
    inverse[i] = square == 0 ? C(0) : C(1 / std::sqrt(square));
  }

 private:
  static constexpr int64_t kSectionFeatures = 4096;

  template <class F>
  static C sum_squares(const T* row, int64_t count, F&& each) {
    constexpr int64_t lanes = kLanes<C>;
    Vector<C> sums[4] = {};
    int64_t k = 0;
    for (; k + 4 * lanes <= count; k += 4 * lanes)
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) {
        const Vector<C> x = load<T, C>(row + k + v * lanes);
        sums[v] += x * x;
        each(x);
      }
    for (; k < count; k += lanes) {
      const Vector<C> x = load_within<T, C>(row + k, count - k);
      sums[0] += x * x;
      each(x);
    }
    return sum_lanes<C>((sums[0] + sums[1]) + (sums[2] + sums[3]));
  }
};

}  // namespace itrd::ITRD_ISA
