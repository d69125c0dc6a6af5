// Columns that the fast pass of the correlation loss cannot finish: dead ones, and those whose squares leave the range.
#pragma once

#include <vector>

#include "cpu/simd/float16.h"

namespace itrd::ITRD_ISA {

// Reads one column as double, scaled by a power of two into the range where squares are safe; returns the exponent.
template <class T>
int column_in_range(const Matrix& z, int64_t j, std::vector<double>& column) {
  double largest = 0;
  for (int64_t i = 0; i < z.rows; ++i) {
    column[i] = to_float(z.row<T>(i)[j]);
    largest = std::fmax(largest, std::fabs(column[i]));
  }
  int power = 0;
  if (largest > 0 && std::isfinite(largest)) std::frexp(largest, &power);
  for (double& x : column) x = std::ldexp(x, -power);
  return power;
}

// Whether all entries of a column equal its first, which is finite.
template <class T>
bool is_dead(const Matrix& z, int64_t j) {
  const auto first = to_float(z.row<T>(0)[j]);
  for (int64_t i = 1; i < z.rows; ++i)
    if (!(to_float(z.row<T>(i)[j]) == first)) return false;
  return std::isfinite(first);
}

// The saved moments of one column, but for ∂L/∂v_j, in double.
struct SavedColumn {
  double mean_s, rstd_s, mean_t, rstd_t, v;
};

// Whether squares of T add up to `square` without having lost bits or left the range.
template <class T>
bool in_range(double square) {
  constexpr bool wide = std::is_same_v<T, double>;
  return (square > (wide ? 1e-250 : 1e-24)) & (square < (wide ? 1e290 : 1e34));  // no jump, so that loops take vectors
}

// A column that may be dead, or whose squares are out of range. In the second case two passes are made over its scaled
// values, which is rare.
template <class T>
__attribute__((noinline)) SavedColumn extreme_column(const Matrix& s, const Matrix& t, int64_t j, double fast_square_s,
                                                     double fast_square_t, SavedColumn column) {
  const int64_t n = s.rows;
  const bool dead_s = fast_square_s == 0 && is_dead<T>(s, j), dead_t = fast_square_t == 0 && is_dead<T>(t, j);
  if (dead_s) column.rstd_s = 0;
  if (dead_t) column.rstd_t = 0;
  column.v = 0;
  if ((dead_s && (dead_t || in_range<T>(fast_square_t))) || (dead_t && in_range<T>(fast_square_s))) return column;
  std::vector<double> x(n), y(n);
  const int power_s = column_in_range<T>(s, j, x), power_t = column_in_range<T>(t, j, y);
  double mean_s = 0, mean_t = 0, square_s = 0, square_t = 0, product = 0;
  for (int64_t i = 0; i < n; ++i) mean_s += x[i] / n, mean_t += y[i] / n;
  for (int64_t i = 0; i < n; ++i) {
    square_s += (x[i] - mean_s) * (x[i] - mean_s);
    square_t += (y[i] - mean_t) * (y[i] - mean_t);
    product += (x[i] - mean_s) * (y[i] - mean_t);
  }
  const double rstd_s = dead_s ? 0 : std::sqrt((n - 1) / square_s), rstd_t = dead_t ? 0 : std::sqrt((n - 1) / square_t);
  // In a dead column v is 0, unless the other side is NaN.
  const double v = dead_s || dead_t ? 0 * (square_s + square_t) : product * rstd_s * rstd_t / n;
  return {std::ldexp(mean_s, power_s), std::ldexp(rstd_s, -power_s), std::ldexp(mean_t, power_t),
          std::ldexp(rstd_t, -power_t), v};
}

}  // namespace itrd::ITRD_ISA
