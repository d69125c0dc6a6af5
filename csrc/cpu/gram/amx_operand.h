// Rows of one input as operands of the tiles, and what follows their products.
#pragma once

#include "cpu/gram/amx_products.h"
#include "cpu/gram/register_tile.h"
#include "cpu/gram/rows.h"

namespace itrd::ITRD_ISA {

// How large an error of G, relative to its size, the gradient's accuracy allows: that of the plain formula in float32,
// or the inputs' rounding.
template <class T>
constexpr double TOLERANCE = std::is_same_v<T, float>  ? 6 * 0x1p-23
                             : std::is_same_v<T, Half> ? 0x1p-10
                                                       : 0x1p-7;

// q_ik = z_ik · power_i · factor_i, so that the largest of a row takes all digits; ẑ_ik = unit_i · q_ik / FIRST.
template <class T>
struct Digits : Norms<T> {
  using Norms<T>::z, Norms<T>::inverse, Norms<T>::power;
  static constexpr int S = DIGITS<T>;
  static constexpr int64_t CHUNK_BYTES = S * CHUNK * PANEL;  // of an operand: 32 rows or columns
  const int64_t steps;                                       // blocks of 64 features
  std::vector<float> factor, unit;

  explicit Digits(const Matrix& z)
      : Norms<T>(z, (z.rows + PANEL - 1) / PANEL * PANEL),
        steps((z.columns + STEP - 1) / STEP),
        factor(inverse.size()),
        unit(inverse.size()) {}

  void measure(int64_t i) {
    Ints magnitudes{};
    Norms<T>::norm(i, [&](Vector<float> x) { magnitudes = larger(magnitudes, magnitude(x)); });
    const float most = largest_lane(magnitudes) * power[i];
    factor[i] = most > 0 ? LARGEST<S> / most : 0;
    unit[i] = most > 0 ? FIRST<S> * inverse[i] / factor[i] : inverse[i];
  }

  // Whether S digits are enough. The products that are left out, of second digits and further, have the size of
  // unit_i unit_j/12 or 256 times less, and signs of either kind, so that of G they miss about this much; against it
  // stands the size of G, which a few pairs of rows tell. A single feature that dominates a row makes its unit large.
  bool accurate() const {
    double units = 0, cosines = 0;
    for (int64_t i = 0; i < z.rows; ++i) units += double(unit[i]) * unit[i] / z.rows;
    const int64_t pairs = std::min<int64_t>(z.rows / 2, 32);
    for (int64_t i = 0; i < pairs; ++i) {
      const double x = cosine(i, z.rows - 1 - i);
      cosines += x * x / pairs;
    }
    const double error = std::sqrt(double(z.columns)) / 12 * units * (S == 3 ? std::sqrt(2) / 256 : 1);
    return error <= TOLERANCE<T> * std::sqrt(cosines);
  }

  // Left operand of zzᵀ: `count` steps from k of panel p, [half][step][digit][row].
  void split_rows(int64_t p, int64_t k, int64_t count, int8_t* left) const {
    const int64_t first = p * PANEL, rows = std::min(PANEL, z.rows - first);
    if (rows < PANEL) std::memset(left, 0, 2 * count * S * TILE_BYTES);
    for (int64_t r = 0; r < rows; ++r) {
      int8_t* const to = left + (r / 16 * count * S * TILE_BYTES) + r % 16 * STEP;
      const T* const from = z.template row<T>(first + r) + k * STEP;
      // A row that follows soon is on its way from the outer caches.
      if (r + 4 < rows) prefetch(z.template row<T>(first + r + 4) + k * STEP, count * STEP);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t columns = z.columns - (k + i) * STEP;
        Vector<float> x[4];
        if (columns >= STEP)
          for (int v = 0; v < 4; ++v) x[v] = load<T, float>(from + i * STEP + 16 * v);
        else
          for (int v = 0; v < 4; ++v) x[v] = load_within<T, float>(from + i * STEP + 16 * v, columns - 16 * v);
        for (int v = 0; v < 4; ++v) x[v] = scaled(first + r, x[v]);
        Ints digits[S];
        row_digits<S>(x, digits);
        store_digits<S>(digits, to + i * S * TILE_BYTES, TILE_BYTES);
      }
    }
  }

  // The same as right operand: the quads of a row below each other, [step][digit][half][quad][row].
  static void turn_rows(const int8_t* left, int64_t count, int8_t* right) {
    for (int64_t half = 0; half < 2; ++half)
      for (int64_t i = 0; i < count * S; ++i) {
        Vector<float> x[16];
        std::memcpy(x, left + (half * count * S + i) * TILE_BYTES, sizeof x);
        transpose<float>(x);
        std::memcpy(right + (2 * i + half) * TILE_BYTES, x, sizeof x);
      }
  }

  // Right operands of Wz: the rows of up to 2·CHUNK_STEPS panels from p on, and blocks of 32 features, CHUNK_BYTES
  // each, [step of 64 rows][digit][half of the features][quad of rows][feature].
  void split_columns(int64_t p, int64_t panels, const Range& blocks, int8_t* rights) const {
    for (int64_t step = 0; step < (panels + 1) / 2; ++step)
      for (int64_t i = 0; i < 16; ++i) {
        // The order that row_digits gives to W's columns.
        const int64_t row = p * PANEL + step * STEP + 4 * i, quad = i % 4 * 4 + i / 4;
        int8_t* to = rights + 2 * step * S * TILE_BYTES + quad * STEP;
        for (int64_t f = blocks.begin; f < blocks.end; ++f, to += CHUNK_BYTES)
          for (int half = 0; half < 2; ++half) {
            const int64_t k = f * PANEL + half * 16, columns = z.columns - k;
            Vector<float> x[4] = {};
            if (row + 4 <= z.rows && columns >= 16)
              for (int r = 0; r < 4; ++r) x[r] = scaled(row + r, load<T, float>(z.template row<T>(row + r) + k));
            else
              for (int r = 0; r < 4; ++r)
                if (row + r < z.rows)
                  x[r] = scaled(row + r, load_within<T, float>(z.template row<T>(row + r) + k, columns));
            Ints digits[S];
            column_digits<S>(x, digits);
            store_digits<S>(digits, to + half * TILE_BYTES, 2 * TILE_BYTES);
          }
      }
  }

  // Rows of panel p, blocks of 32 features: result = or += g, of which `from` has the blocks (32 × 32) one after the
  // other. With `along`, g_i·ẑ_i of each row, all of g is there, and becomes 4(g − (g·ẑ)ẑ)/‖z‖.
  void store_panel(const float* from, int64_t p, const Range& blocks, const Matrix& result, bool add,
                   const double* along) const {
    const int64_t rows = std::min(PANEL, z.rows - p * PANEL);
    const int64_t begin = blocks.begin * PANEL, end = std::min(blocks.end * PANEL, z.columns);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t i = p * PANEL + r;
      const T* const own = z.template row<T>(i);
      float* const to = result.row<float>(i);
      const float g_z = along ? inverse[i] * float(along[r]) : 0, scale = along ? 4 * inverse[i] : 1,
                  power = along ? this->power[i] : 1;
      auto finished = [&](int64_t k, Vector<float> before, Vector<float> z_k) {
        const int64_t block = k / PANEL - blocks.begin;
        const Vector<float> g = before + load<float, float>(from + (block * PANEL + r) * PANEL + k % PANEL);
        return (g - z_k * power * g_z) * scale * power;
      };
      int64_t k = begin;
      for (; k + 16 <= end; k += 16)
        store<float, float>(to + k, finished(k, add ? load<float, float>(to + k) : Vector<float>{},
                                             along ? load<T, float>(own + k) : Vector<float>{}));
      if (k < end)
        store_some<float, float>(to + k,
                                 finished(k, add ? load_some<float, float>(to + k, end - k) : Vector<float>{},
                                          along ? load_some<T, float>(own + k, end - k) : Vector<float>{}),
                                 end - k);
    }
  }

 private:
  static void prefetch(const T* from, int64_t count) {
    for (int64_t i = 0; i < count; i += 64 / sizeof(T)) __builtin_prefetch(from + i);
  }

  Vector<float> scaled(int64_t i, Vector<float> x) const { return x * power[i] * factor[i]; }

  double cosine(int64_t i, int64_t j) const {
    const T *const a = z.template row<T>(i), *const b = z.template row<T>(j);
    Vector<float> sum{};
    for (int64_t k = 0; k < z.columns; k += 16)
      sum += load_within<T, float>(a + k, z.columns - k) * (power[i] * inverse[i]) *
             (load_within<T, float>(b + k, z.columns - k) * (power[j] * inverse[j]));
    return sum_lanes<float>(sum);
  }
};

}  // namespace itrd::ITRD_ISA
