// Rows of one input normalised and packed for the products, and their gradient unpacked and projected.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/norms.h"
#include "cpu/tile.h"

namespace itrd::ITRD_ISA {

// ẑ = z/‖z‖ of one input, packed in panels [feature][row], and what unpacking its gradient needs.
template <class T>
struct Packed : Norms<T> {
  using typename Norms<T>::C;
  using Norms<T>::z, Norms<T>::inverse, Norms<T>::power, Norms<T>::norm;
  const int64_t panels, features;  // features padded to FEATURE_STEP
  C* values = nullptr;             // panels · panel_size() numbers, given by the owner

  explicit Packed(const Matrix& z)
      : Norms<T>(z, (z.rows + PANEL - 1) / PANEL * PANEL),
        panels((z.rows + PANEL - 1) / PANEL),
        features((z.columns + FEATURE_STEP - 1) / FEATURE_STEP * FEATURE_STEP) {}

  int64_t panel_size() const { return features * PANEL; }
  int64_t size() const { return panels * panel_size(); }
  C* panel(int64_t p) const { return values + p * panel_size(); }

  void pack(int64_t p) {
    constexpr int64_t L = LANES<C>;
    const int64_t first = p * PANEL, rows = std::min(PANEL, z.rows - first);
    for (int64_t r = 0; r < rows; ++r) norm(first + r);
    for (int64_t k = 0; k < features; k += L)
      for (int64_t r = 0; r < PANEL; r += L) {
        if (r + L <= rows && k + L <= z.columns)
          pack_block<true>(p, k, r, L, L);
        else
          pack_block<false>(p, k, r, std::clamp(z.columns - k, int64_t(0), L), std::clamp(rows - r, int64_t(0), L));
      }
  }

  // Rows of 4(g − (g·ẑ)ẑ)/‖z‖ from panel p of g = Wẑ.
  void unpack(int64_t p, const C* g, const Matrix& result) const {
    constexpr int64_t L = LANES<C>, VECTORS = PANEL / L;
    const int64_t rows = std::min(PANEL, z.rows - p * PANEL), d = z.columns;
    const C* const own = panel(p);
    // g·ẑ, by sections so that a long row keeps its digits
    Vector<C> dot[VECTORS] = {};
    for (int64_t begin = 0; begin < d; begin += 256) {
      Vector<C> part[VECTORS] = {};
      for (int64_t k = begin; k < std::min(begin + 256, d); ++k)
#pragma GCC unroll 16
        for (int64_t v = 0; v < VECTORS; ++v)
          part[v] += load<C, C>(g + k * PANEL + v * L) * load<C, C>(own + k * PANEL + v * L);
#pragma GCC unroll 16
      for (int64_t v = 0; v < VECTORS; ++v) dot[v] += part[v];
    }
    for (int64_t k = 0; k < d; k += L)
#pragma GCC unroll 16
      for (int64_t v = 0; v < VECTORS; ++v) {
        if (k + L <= d && (v + 1) * L <= rows)
          unpack_block<true>(p, k, v * L, L, L, g, dot[v], result);
        else if (v * L < rows)
          unpack_block<false>(p, k, v * L, std::min(L, d - k), std::min(L, rows - v * L), g, dot[v], result);
      }
  }

 private:
  // Features from k, rows from r of a panel: those that exist; the padding is zero.
  template <bool WHOLE>
  inline void pack_block(int64_t p, int64_t k, int64_t r, int64_t columns, int64_t rows) {
    constexpr int64_t L = LANES<C>;
    const int64_t first = p * PANEL + r;
    Vector<C> x[L] = {};
#pragma GCC unroll 16
    for (int64_t i = 0; i < L; ++i)
      if (WHOLE || i < rows) {
        const T* const from = z.template row<T>(first + i) + k;
        x[i] = (WHOLE ? load<T, C>(from) : load_some<T, C>(from, columns)) * power[first + i] * inverse[first + i];
      }
    transpose<C>(x);
    C* const to = panel(p) + k * PANEL + r;
#pragma GCC unroll 16
    for (int64_t i = 0; i < L; ++i)
      if (WHOLE || k + i < features) store<C, C>(to + i * PANEL, x[i]);
  }

  template <bool WHOLE>
  inline void unpack_block(int64_t p, int64_t k, int64_t r, int64_t columns, int64_t rows, const C* g, Vector<C> dot,
                           const Matrix& result) const {
    constexpr int64_t L = LANES<C>;
    const int64_t first = p * PANEL + r;
    const C *const from = g + k * PANEL + r, *const own = panel(p) + k * PANEL + r;
    const Vector<C> scale = 4 * load<C, C>(&inverse[first]), power_of_two = load<C, C>(&power[first]);
    Vector<C> x[L] = {};
#pragma GCC unroll 16
    for (int64_t i = 0; i < L; ++i)
      if (WHOLE || i < columns)
        x[i] = (load<C, C>(from + i * PANEL) - dot * load<C, C>(own + i * PANEL)) * scale * power_of_two;
    transpose<C>(x);
#pragma GCC unroll 16
    for (int64_t i = 0; i < L; ++i)
      if (WHOLE) {
        store<C, C>(result.row<C>(first + i) + k, x[i]);
      } else if (i < rows) {
        store_some<C, C>(result.row<C>(first + i) + k, x[i], columns);
      }
  }
};

}  // namespace itrd::ITRD_ISA
