// The rows of one input normalised and packed for the products, and their gradient unpacked and projected.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/gram/register_tile.h"
#include "cpu/gram/rows.h"

namespace itrd::ITRD_ISA {

// ẑ = z/‖z‖ of one input, packed in panels [feature][row] for both products, and what unpacking its gradient needs.
// Where a lane holds a pair of numbers, it is z itself that is packed: [pair of features][row] for G, and
// [feature][pair of rows] for Wẑ.
template <class T>
struct PackedOperand : RowNorms<T> {
  using typename RowNorms<T>::C;
  using RowNorms<T>::z, RowNorms<T>::inverse, RowNorms<T>::power, RowNorms<T>::norm;
  using Lane = ITRD_ISA::Lane<T>;
  static constexpr bool kPairs = kPerLane<T> == 2;
  const int64_t panels, features;  // features padded to kFeatureStep
  Lane* values = nullptr;          // size() lanes, which the owner gives
  // The operand of Wẑ: the same with pairs of rows; where a lane holds one number, the values. Null: Wẑ is not wanted.
  Lane* row_pairs = nullptr;

  explicit PackedOperand(const Matrix& z)
      : RowNorms<T>(z, (z.rows + kPanel - 1) / kPanel * kPanel),
        panels((z.rows + kPanel - 1) / kPanel),
        features((z.columns + kFeatureStep - 1) / kFeatureStep * kFeatureStep) {}

  int64_t panel_size() const { return features * kPanel / kPerLane<T>; }
  int64_t size() const { return panels * panel_size(); }
  Lane* panel(int64_t p) const { return values + p * panel_size(); }
  Lane* row_pairs_panel(int64_t p) const { return row_pairs + p * panel_size(); }
  // The factor between what is packed and ẑ, of row i and of rows i, i + 1, …
  C unit_of(int64_t i) const { return kPairs ? inverse[i] : C(1); }
  Vector<C> unit(int64_t i) const { return kPairs ? load<C, C>(&inverse[i]) : broadcast(C(1)); }

  // Takes the norms of the rows of panel p, and packs them.
  void pack(int64_t p) {
    constexpr int64_t lanes = kLanes<C>, k_lanes = lanes * kPerLane<T>;
    const int64_t first = p * kPanel, rows = std::min(kPanel, z.rows - first);
    for (int64_t r = 0; r < rows; ++r) norm(first + r);
    for (int64_t k = 0; k < features; k += k_lanes) {
      for (int64_t r = 0; r < kPanel; r += lanes) {
        if (r + lanes <= rows && k + k_lanes <= z.columns)
          pack_block<true>(p, k, r, k_lanes, lanes);
        else
          pack_block<false>(p, k, r, std::clamp(z.columns - k, int64_t(0), k_lanes),
                            std::clamp(rows - r, int64_t(0), lanes));
      }
      if constexpr (kPairs)
        if (row_pairs) pair_rows(p, k, std::min(k_lanes, features - k));
    }
  }

  // The rows of panel p of the gradient, 4(g − (g·ẑ)ẑ)/‖z‖, from those of g = Wẑ, [feature][32 rows].
  void unpack(int64_t p, const C* g, const Matrix& result) const {
    constexpr int64_t lanes = kLanes<C>, vectors = kPanel / lanes;
    const int64_t rows = std::min(kPanel, z.rows - p * kPanel), d = z.columns;
    // g·ẑ is summed by sections, so that a long row keeps its digits.
    Vector<C> projection[vectors] = {};
    for (int64_t begin = 0; begin < d; begin += 256) {
      Vector<C> part[vectors] = {};
      for (int64_t k = begin; k < std::min(begin + 256, d); ++k)
#pragma GCC unroll 16
        for (int64_t v = 0; v < vectors; ++v) part[v] += load<C, C>(g + k * kPanel + v * lanes) * own(p, k, v * lanes);
#pragma GCC unroll 16
      for (int64_t v = 0; v < vectors; ++v) projection[v] += part[v];
    }
    for (int64_t k = 0; k < d; k += lanes)
#pragma GCC unroll 16
      for (int64_t v = 0; v < vectors; ++v) {
        if (k + lanes <= d && (v + 1) * lanes <= rows)
          unpack_block<true>(p, k, v * lanes, lanes, lanes, g, projection[v], result);
        else if (v * lanes < rows)
          unpack_block<false>(p, k, v * lanes, std::min(lanes, d - k), std::min(lanes, rows - v * lanes), g,
                              projection[v], result);
      }
  }

 private:
  // Packs features from k on of rows from r on of panel p: `columns` and `rows` exist, the padding is zero.
  template <bool whole>
  inline void pack_block(int64_t p, int64_t k, int64_t r, int64_t columns, int64_t rows) {
    constexpr int64_t lanes = kLanes<C>;
    const int64_t first = p * kPanel + r;
    Vector<Lane> x[lanes] = {};
#pragma GCC unroll 16
    for (int64_t i = 0; i < lanes; ++i)
      if (whole || i < rows) {
        const T* const from = z.template row<T>(first + i) + k;
        if constexpr (kPairs)
          x[i] = lanes_of_row<whole>(from, columns, power[first + i]);
        else
          x[i] = (whole ? load<T, C>(from) : load_some<T, C>(from, columns)) * power[first + i] * inverse[first + i];
      }
    transpose<Lane>(x);
    Lane* const to = panel(p) + k / kPerLane<T> * kPanel + r;
#pragma GCC unroll 16
    for (int64_t i = 0; i < lanes; ++i)
      if (whole || k + i * kPerLane<T> < features) store<Lane, Lane>(to + i * kPanel, x[i]);
  }

  // Features z_k, z_k+1, … of a row as they lie in memory, those of an extreme row times its power of two.
  template <bool whole>
  static Vector<Lane> lanes_of_row(const T* from, int64_t columns, C power) {
    Vector<Lane> x{};
    if (whole) {
      std::memcpy(&x, from, sizeof x);
    } else {
      std::memcpy(&x, from, columns * sizeof(T));
    }
    if (power == 1) [[likely]]
      return x;
    return join((Vector<C>)(x << 16) * power, (Vector<C>)(x & 0xffff0000) * power);
  }

  // `count` features from k on of panel p, once more in pairs of rows.
  void pair_rows(int64_t p, int64_t k, int64_t count) {
    constexpr int64_t lanes = kLanes<C>;
    const Lane* from = panel(p) + k / 2 * kPanel;
    Lane* to = row_pairs_panel(p) + k * kPanel / 2;
    for (int64_t i = 0; i < count; i += 2, from += kPanel, to += kPanel) {
      const Vector<Lane> x = load<Lane, Lane>(from), y = load<Lane, Lane>(from + lanes);
      store<Lane, Lane>(to, halves<false>(x, y));
      store<Lane, Lane>(to + kPanel / 2, halves<true>(x, y));
    }
  }

  // Feature k of ẑ of rows r, r + 1, … of panel p.
  Vector<C> own(int64_t p, int64_t k, int64_t r) const {
    if constexpr (kPairs)
      return load<T, C>(reinterpret_cast<const T*>(row_pairs_panel(p)) + k * kPanel + r) * unit(p * kPanel + r);
    else
      return load<C, C>(panel(p) + k * kPanel + r);
  }

  // The same for features from k on of rows from r on, given g·ẑ of those rows.
  template <bool whole>
  inline void unpack_block(int64_t p, int64_t k, int64_t r, int64_t columns, int64_t rows, const C* g,
                           Vector<C> projection, const Matrix& result) const {
    constexpr int64_t lanes = kLanes<C>;
    const int64_t first = p * kPanel + r;
    const C* const from = g + k * kPanel + r;
    const Vector<C> scale = 4 * load<C, C>(&inverse[first]), power_of_two = load<C, C>(&power[first]);
    Vector<C> x[lanes] = {};
#pragma GCC unroll 16
    for (int64_t i = 0; i < lanes; ++i)
      if (whole || i < columns)
        x[i] = (load<C, C>(from + i * kPanel) - projection * own(p, k + i, r)) * scale * power_of_two;
    transpose<C>(x);
#pragma GCC unroll 16
    for (int64_t i = 0; i < lanes; ++i)
      if (whole) {
        store<C, C>(result.row<C>(first + i) + k, x[i]);
      } else if (i < rows) {
        store_some<C, C>(result.row<C>(first + i) + k, x[i], columns);
      }
  }
};

}  // namespace itrd::ITRD_ISA
