// Rows of one input as operands of the tiles, and what follows their products.
#pragma once

#include "cpu/norms.h"
#include "cpu/tile.h"
#include "cpu/tiles.h"

namespace itrd::ITRD_ISA {

constexpr int64_t CHUNK = 4;  // blocks of features taken at a time, whose slices stay in the L1 cache

// Panels of 32 rows in blocks of 32 features, each of Z slices; rows are scaled by a power of two where they are
// extreme.
template <class T>
struct Sliced : Norms<T> {
  using Norms<T>::z, Norms<T>::inverse, Norms<T>::power;
  static constexpr int Z = FEATURE_SLICES<T>;
  const int64_t steps;  // blocks of features

  explicit Sliced(const Matrix& z)
      : Norms<T>(z, (z.rows + PANEL - 1) / PANEL * PANEL), steps((z.columns + PANEL - 1) / PANEL) {}

  // Blocks [k, k + count) of panel p as left operand of zzᵀ, [block][slice][row].
  void split_panel(int64_t p, int64_t k, int64_t count, Word* left) const {
    const int64_t first = p * PANEL, rows = std::min(PANEL, z.rows - first);
    Pairs* const to = reinterpret_cast<Pairs*>(left);
    if (rows < PANEL) std::fill(to, to + count * Z * PANEL, Pairs{});
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < count; ++i) {
        const int64_t columns = z.columns - (k + i) * PANEL;
        const T* const from = z.template row<T>(first + r) + (k + i) * PANEL;
        const Vector<float> low = load_within<T, float>(from, columns),
                            high = load_within<T, float>(from + 16, columns - 16);
        Pairs slices[Z];
        split<Z>(low * power[first + r], high * power[first + r], slices);
        for (int s = 0; s < Z; ++s) to[(i * Z + s) * PANEL + r] = slices[s];
      }
  }

  // The same blocks as right operand of zzᵀ.
  static void pack_columns(const Word* left, int64_t count, Word* right) {
    for (int64_t i = 0; i < count * Z; ++i)
      store_transposed(reinterpret_cast<const Pairs*>(left) + i * PANEL, right + i * BLOCK_WORDS);
  }

  // And as right operand of Wz, block k + i at right + i · stride.
  void pack_rows(int64_t p, int64_t k, int64_t count, Word* right, int64_t stride) const {
    Pairs left[CHUNK * Z * PANEL];
    split_panel(p, k, count, reinterpret_cast<Word*>(left));
    for (int64_t i = 0; i < count * Z; ++i)
      store_paired(left + i * PANEL, right + i / Z * stride + i % Z * BLOCK_WORDS);
  }

  // Rows of panel p, blocks [k, k_end) of features: result = or += the blocks (32 × 32) that follow each other.
  void store_panel(const float* blocks, int64_t p, int64_t k, int64_t k_end, const Matrix& result, bool add) const {
    const int64_t rows = std::min(PANEL, z.rows - p * PANEL);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t j = k * PANEL; j < std::min(k_end * PANEL, z.columns); j += 16) {
        float* const to = result.row<float>(p * PANEL + r) + j;
        const float* const from = blocks + ((j / PANEL - k) * PANEL + r) * PANEL + j % PANEL;
        const int64_t count = z.columns - j;
        const Vector<float> x = load<float, float>(from);
        store_within<float, float>(to, add ? x + load_within<float, float>(to, count) : x, count);
      }
  }

  // Row i of g = Wẑ, in place: 4(g − (g·ẑ)ẑ)/‖z‖
  void project(int64_t i, const Matrix& result) const {
    using V = Vector<float>;
    const int64_t d = z.columns;
    const T* const own = z.template row<T>(i);
    float* const g = result.row<float>(i);
    auto read = [&](int64_t k) { return load_within<T, float>(own + k, d - k) * power[i] * inverse[i]; };
    auto read_g = [&](int64_t k) { return load_within<float, float>(g + k, d - k); };
    // By sections, so that a long row keeps its digits.
    double dot = 0;
    for (int64_t begin = 0; begin < d; begin += 4096) {
      V part{};
      for (int64_t k = begin; k < std::min(begin + 4096, d); k += 16) part += read_g(k) * read(k);
      dot += sum_lanes<float>(part);
    }
    const V along = broadcast(float(dot));
    for (int64_t k = 0; k < d; k += 16) {
      const V x = (read_g(k) - along * read(k)) * (4 * inverse[i]) * power[i];
      store_within<float, float>(g + k, x, d - k);
    }
  }
};

}  // namespace itrd::ITRD_ISA
