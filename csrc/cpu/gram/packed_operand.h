// Rows of one input normalised and packed for the products, and their gradient unpacked and projected.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/gram/register_tile.h"
#include "cpu/gram/rows.h"

namespace itrd::ITRD_ISA {

// ẑ = z/‖z‖ of one input, packed in panels [feature][row], and what unpacking its gradient needs. Lanes of two
// hold z itself: [two features][row] and, for the other product, [feature][two rows].
template <class T>
struct Packed : Norms<T> {
  using typename Norms<T>::C;
  using Norms<T>::z, Norms<T>::inverse, Norms<T>::power, Norms<T>::norm;
  using Lane = ITRD_ISA::Lane<T>;
  static constexpr bool TWO = PER_LANE<T> == 2;
  const int64_t panels, features;  // features padded to FEATURE_STEP
  Lane* values = nullptr;          // panels · panel_size() lanes, given by the owner
  Lane* turned = nullptr;  // the same with two rows a lane, where Wẑ is wanted; else, of one number a lane, the values

  explicit Packed(const Matrix& z)
      : Norms<T>(z, (z.rows + PANEL - 1) / PANEL * PANEL),
        panels((z.rows + PANEL - 1) / PANEL),
        features((z.columns + FEATURE_STEP - 1) / FEATURE_STEP * FEATURE_STEP) {}

  int64_t panel_size() const { return features * PANEL / PER_LANE<T>; }
  int64_t size() const { return panels * panel_size(); }
  Lane* panel(int64_t p) const { return values + p * panel_size(); }
  Lane* turned_panel(int64_t p) const { return turned + p * panel_size(); }
  // The factor between what is packed and ẑ: of row i, and of rows i, i + 1, …
  C unit_of(int64_t i) const { return TWO ? inverse[i] : C(1); }
  Vector<C> unit(int64_t i) const { return TWO ? load<C, C>(&inverse[i]) : broadcast(C(1)); }

  void pack(int64_t p) {
    constexpr int64_t L = LANES<C>, K = L * PER_LANE<T>;
    const int64_t first = p * PANEL, rows = std::min(PANEL, z.rows - first);
    for (int64_t r = 0; r < rows; ++r) norm(first + r);
    for (int64_t k = 0; k < features; k += K) {
      for (int64_t r = 0; r < PANEL; r += L) {
        if (r + L <= rows && k + K <= z.columns)
          pack_block<true>(p, k, r, K, L);
        else
          pack_block<false>(p, k, r, std::clamp(z.columns - k, int64_t(0), K), std::clamp(rows - r, int64_t(0), L));
      }
      if constexpr (TWO)
        if (turned) turn_block(p, k, std::min(K, features - k));
    }
  }

  // Rows of 4(g − (g·ẑ)ẑ)/‖z‖ from panel p of g = Wẑ.
  void unpack(int64_t p, const C* g, const Matrix& result) const {
    constexpr int64_t L = LANES<C>, VECTORS = PANEL / L;
    const int64_t rows = std::min(PANEL, z.rows - p * PANEL), d = z.columns;
    // g·ẑ, by sections so that a long row keeps its digits
    Vector<C> dot[VECTORS] = {};
    for (int64_t begin = 0; begin < d; begin += 256) {
      Vector<C> part[VECTORS] = {};
      for (int64_t k = begin; k < std::min(begin + 256, d); ++k)
#pragma GCC unroll 16
        for (int64_t v = 0; v < VECTORS; ++v) part[v] += load<C, C>(g + k * PANEL + v * L) * own(p, k, v * L);
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
    Vector<Lane> x[L] = {};
#pragma GCC unroll 16
    for (int64_t i = 0; i < L; ++i)
      if (WHOLE || i < rows) {
        const T* const from = z.template row<T>(first + i) + k;
        if constexpr (TWO)
          x[i] = lanes_of_row<WHOLE>(from, columns, power[first + i]);
        else
          x[i] = (WHOLE ? load<T, C>(from) : load_some<T, C>(from, columns)) * power[first + i] * inverse[first + i];
      }
    transpose<Lane>(x);
    Lane* const to = panel(p) + k / PER_LANE<T> * PANEL + r;
#pragma GCC unroll 16
    for (int64_t i = 0; i < L; ++i)
      if (WHOLE || k + i * PER_LANE<T> < features) store<Lane, Lane>(to + i * PANEL, x[i]);
  }

  // Features z_k, z_k+1, … of a row as they lie in memory; extreme ones times a power of two.
  template <bool WHOLE>
  static Vector<Lane> lanes_of_row(const T* from, int64_t columns, C power) {
    Vector<Lane> x{};
    if (WHOLE) {
      std::memcpy(&x, from, sizeof x);
    } else {
      std::memcpy(&x, from, columns * sizeof(T));
    }
    if (power == 1) [[likely]]
      return x;
    return join((Vector<C>)(x << 16) * power, (Vector<C>)(x & 0xffff0000) * power);
  }

  // `count` features from k of a panel, once more with two rows a lane.
  void turn_block(int64_t p, int64_t k, int64_t count) {
    constexpr int64_t L = LANES<C>;
    const Lane* from = panel(p) + k / 2 * PANEL;
    Lane* to = turned_panel(p) + k * PANEL / 2;
    for (int64_t i = 0; i < count; i += 2, from += PANEL, to += PANEL) {
      const Vector<Lane> x = load<Lane, Lane>(from), y = load<Lane, Lane>(from + L);
      store<Lane, Lane>(to, halves<false>(x, y));
      store<Lane, Lane>(to + PANEL / 2, halves<true>(x, y));
    }
  }

  // ẑ of feature k, rows r, r + 1, … of panel p.
  Vector<C> own(int64_t p, int64_t k, int64_t r) const {
    if constexpr (TWO)
      return load<T, C>(reinterpret_cast<const T*>(turned_panel(p)) + k * PANEL + r) * unit(p * PANEL + r);
    else
      return load<C, C>(panel(p) + k * PANEL + r);
  }

  template <bool WHOLE>
  inline void unpack_block(int64_t p, int64_t k, int64_t r, int64_t columns, int64_t rows, const C* g, Vector<C> dot,
                           const Matrix& result) const {
    constexpr int64_t L = LANES<C>;
    const int64_t first = p * PANEL + r;
    const C* const from = g + k * PANEL + r;
    const Vector<C> scale = 4 * load<C, C>(&inverse[first]), power_of_two = load<C, C>(&power[first]);
    Vector<C> x[L] = {};
#pragma GCC unroll 16
    for (int64_t i = 0; i < L; ++i)
      if (WHOLE || i < columns) x[i] = (load<C, C>(from + i * PANEL) - dot * own(p, k + i, r)) * scale * power_of_two;
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
