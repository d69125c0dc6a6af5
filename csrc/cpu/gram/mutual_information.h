// What the Gram engines compute: the mutual-information loss (Eqs. 7–9) of all pairs of rows,
//   L = Σ_ij (c_s G_s² − c_st G_s² G_t²),   c_s = 1/m_s²,   c_st = 1/m_st²
// and with logarithms
//   L = log2 (Σ_ij G_s² / m_s²) − log2 (Σ_ij G_s² G_t² / m_st²)
#pragma once

#include <cmath>

#include "losses/mutual_information.h"

namespace itrd::ITRD_ISA {

// m_s and m_st: how many rows of S are not zero, and in how many neither S nor T is. On the diagonal G is 1 there.
struct Traces {
  double s = 0, st = 0;
};

// Σ G_s² and Σ G_s² G_t² over the pairs of different rows.
struct Sums {
  double s = 0, st = 0;
};

// c_s and c_st.
struct Coefficients {
  double s = 0, st = 0;
};

// x/m²; without a row that is not zero it is 0, or NaN where x is.
inline double over_square(double x, double m) { return m == 0 ? 0 * x : x / (m * m); }

// c_s = 1/m_s², c_st = 1/m_st²
inline Coefficients plain_coefficients(Traces m) { return {over_square(1, m.s), over_square(1, m.st)}; }

// c_s = 1/(ln 2 · Σ G_s²), c_st = 1/(ln 2 · Σ G_s² G_t²), the diagonals with them
inline Coefficients log_coefficients(Sums sums, Traces m) {
  const double ln2 = 0.6931471805599453;
  return {m.s == 0 ? 0 : 1 / (ln2 * (sums.s + m.s)), m.st == 0 ? 0 : 1 / (ln2 * (sums.st + m.st))};
}

inline double loss_of(Sums sums, Traces m, bool log) {
  const double potential_s = over_square(sums.s + m.s, m.s), potential_st = over_square(sums.st + m.st, m.st);
  if (!log) return potential_s - potential_st;
  return (m.s == 0 ? potential_s : std::log2(potential_s)) - (m.st == 0 ? potential_st : std::log2(potential_st));
}

// What entries g of G_s and h of G_t add to the sums, and W and W' there.
template <class V>
inline void mutual_information(V g, V h, V c_s, V c_st, V& sum_s, V& sum_st, V& w_s, V& w_t) {
  const V g2 = g * g, h2 = h * h;
  sum_s += g2;
  sum_st += g2 * h2;
  w_s = MutualInformation::weight_s(g, h, c_s, c_st);
  w_t = MutualInformation::weight_t(g, h, c_st);
}

}  // namespace itrd::ITRD_ISA
