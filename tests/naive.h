// The losses and their gradients as plain formulas in float64, as tests/naive.py has them in NumPy.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace naive {

using Numbers = std::vector<double>;

// L_corr and, for unit upstream, its gradients. In a dead column v = 0, and so are its gradients.
inline double correlation(const Numbers& s, const Numbers& t, int n, int d, double alpha, Numbers& ds, Numbers& dt) {
  Numbers x = s, y = t, v(d), rstd_x(d), rstd_y(d);
  auto normalise = [&](Numbers& z, int j) {
    auto at = [&](int i) -> double& { return z[std::size_t(i) * d + j]; };
    double mean = 0, square = 0, low = at(0), high = at(0);
    for (int i = 0; i < n; ++i) mean += at(i) / n, low = std::min(low, at(i)), high = std::max(high, at(i));
    for (int i = 0; i < n; ++i) square += std::pow(at(i) - mean, 2);
    const double rstd = low == high ? 0 : 1 / std::sqrt(square / (n - 1));
    for (int i = 0; i < n; ++i) at(i) = (at(i) - mean) * rstd;
    return rstd;
  };
  double sum = 0;
  for (int j = 0; j < d; ++j) {
    rstd_x[j] = normalise(x, j);
    rstd_y[j] = normalise(y, j);
    for (int i = 0; i < n; ++i) v[j] += x[std::size_t(i) * d + j] * y[std::size_t(i) * d + j] / n;
    sum += std::pow(std::fabs(v[j] - 1), 2 * alpha);
  }
  ds = dt = Numbers(x.size());
  for (int j = 0; j < d; ++j) {
    const double dv = -2 * alpha * std::pow(std::fabs(v[j] - 1), 2 * alpha - 1) / (std::log(2.0) * sum);
    for (int i = 0; i < n; ++i) {
      const std::size_t k = std::size_t(i) * d + j;
      ds[k] = dv * rstd_x[j] * (y[k] / n - v[j] * x[k] / (n - 1));
      dt[k] = dv * rstd_y[j] * (x[k] / n - v[j] * y[k] / (n - 1));
    }
  }
  return std::log2(sum);
}

// L_mi and its gradients, by ∂L/∂ẑ = 4 W ẑ. A zero row is left out of the counts m, and its gradient is zero.
inline double gram(const Numbers& s, int d_s, const Numbers& t, int d_t, int n, bool log, Numbers& ds, Numbers& dt) {
  auto normalise = [&](Numbers z, int d, Numbers& inverse) {
    for (int i = 0; i < n; ++i) {
      double square = 0;
      for (int j = 0; j < d; ++j) square += z[std::size_t(i) * d + j] * z[std::size_t(i) * d + j];
      inverse[i] = square == 0 ? 0 : 1 / std::sqrt(square);
      for (int j = 0; j < d; ++j) z[std::size_t(i) * d + j] *= inverse[i];
    }
    return z;
  };
  Numbers inverse_s(n), inverse_t(n), x = normalise(s, d_s, inverse_s), y = normalise(t, d_t, inverse_t);
  auto dot = [](const Numbers& z, int d, int i, int j) {
    const double *const a = &z[std::size_t(i) * d], *const b = &z[std::size_t(j) * d];
    double sum = 0;
    for (int k = 0; k < d; ++k) sum += a[k] * b[k];
    return sum;
  };
  Numbers g_s(std::size_t(n) * n), g_t(std::size_t(n) * n);
  double sum_s = 0, sum_st = 0, m_s = 0, m_st = 0;
  for (int i = 0; i < n; ++i) {
    m_s += inverse_s[i] != 0;
    m_st += inverse_s[i] != 0 && inverse_t[i] != 0;
    for (int j = 0; j < n; ++j) {
      const std::size_t k = std::size_t(i) * n + j;
      g_s[k] = dot(x, d_s, i, j);
      g_t[k] = dot(y, d_t, i, j);
      sum_s += g_s[k] * g_s[k];
      sum_st += std::pow(g_s[k] * g_t[k], 2);
    }
  }
  const double c_s = log ? 1 / (std::log(2.0) * sum_s) : 1 / (m_s * m_s);
  const double c_st = log ? 1 / (std::log(2.0) * sum_st) : 1 / (m_st * m_st);
  auto gradient = [&](const Numbers& z, int d, const Numbers& inverse, auto weight) {
    Numbers out(z.size());
    for (int i = 0; i < n; ++i)
      for (int j = 0; j < n; ++j) {
        const std::size_t k = std::size_t(i) * n + j;
        const double w = 4 * weight(g_s[k], g_t[k]) * inverse[i], along = dot(z, d, i, j);
        double* const to = &out[std::size_t(i) * d];
        const double *const own = &z[std::size_t(i) * d], *const other = &z[std::size_t(j) * d];
        for (int f = 0; f < d; ++f) to[f] += w * (other[f] - along * own[f]);
      }
    return out;
  };
  ds = gradient(x, d_s, inverse_s, [&](double a, double b) { return a * (c_s - c_st * b * b); });
  dt = gradient(y, d_t, inverse_t, [&](double a, double b) { return -c_st * a * a * b; });
  const double l_s = sum_s / (m_s * m_s), l_st = sum_st / (m_st * m_st);
  return log ? std::log2(l_s) - std::log2(l_st) : l_s - l_st;
}

}  // namespace naive
