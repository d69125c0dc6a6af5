// The rows of one input as operands of the products on AMX, and what follows the products.
#pragma once

#include "cpu/gram/amx_products.h"
#include "cpu/gram/register_tile.h"
#include "cpu/gram/rows.h"

namespace itrd::ITRD_ISA {

// How large an error of G, relative to its size, the accuracy of the gradient allows: as large as that of the plain
// formula in float32, or as the rounding of the inputs.
template <class T>
constexpr double kTolerance = std::is_same_v<T, float>  ? 6 * 0x1p-23
                              : std::is_same_v<T, Half> ? 0x1p-10
                                                        : 0x1p-7;

// Row i as integers q_ik = z_ik · power_i · factor_i, of which the largest takes all bits of the limbs:
//   ẑ_ik = unit_i · q_ik / kFirstLimbValue
template <class T>
struct AmxOperand : RowNorms<T> {
  using RowNorms<T>::z, RowNorms<T>::inverse, RowNorms<T>::power;
  static constexpr int kLimbCount = kLimbs<T>;
  static constexpr int64_t kOperandBytes =
      kLimbCount * kChunkNumbers * kPanel;  // of an operand: a chunk of 32 rows or columns
  const int64_t steps;                      // of kStepNumbers features
  std::vector<float> factor, unit;

  explicit AmxOperand(const Matrix& z)
      : RowNorms<T>(z, (z.rows + kPanel - 1) / kPanel * kPanel),
        steps((z.columns + kStepNumbers - 1) / kStepNumbers),
        factor(inverse.size()),
        unit(inverse.size()) {}

  // Takes the norm and the largest feature of row i.
  void measure(int64_t i) {
    Ints magnitudes{};
    RowNorms<T>::norm(i, [&](Vector<float> x) { magnitudes = larger(magnitudes, magnitude(x)); });
    const float most = largest_lane(magnitudes) * power[i];
    factor[i] = most > 0 ? kLargest<kLimbCount> / most : 0;
    unit[i] = most > 0 ? kFirstLimbValue<kLimbCount> * inverse[i] / factor[i] : inverse[i];
  }

  // Whether the limbs are enough. The products that are left out, of second limbs and further, have the size of
  // unit_i unit_j/12 or 256 times less, and either sign, so that G misses about this much; against it stands the size
  // of G, which a few pairs of rows tell. A single feature that dominates a row makes its unit large.
  bool accurate() const {
    double units = 0, cosines = 0;
    for (int64_t i = 0; i < z.rows; ++i) units += double(unit[i]) * unit[i] / z.rows;
    const int64_t pairs = std::min<int64_t>(z.rows / 2, 32);
    for (int64_t i = 0; i < pairs; ++i) {
      const double x = cosine(i, z.rows - 1 - i);
      cosines += x * x / pairs;
    }
    const double error = std::sqrt(double(z.columns)) / 12 * units * (kLimbCount == 3 ? std::sqrt(2) / 256 : 1);
    return error <= kTolerance<T> * std::sqrt(cosines);
  }

  // Left operand of G: `count` steps from k on of panel p, [half of the rows][step][limb][row][number].
  void split_rows(int64_t p, int64_t k, int64_t count, int8_t* left) const {
    const int64_t first = p * kPanel, rows = std::min(kPanel, z.rows - first);
    if (rows < kPanel) std::memset(left, 0, 2 * count * kLimbCount * kAmxTileBytes);
    for (int64_t r = 0; r < rows; ++r) {
      int8_t* const to = left + (r / 16 * count * kLimbCount * kAmxTileBytes) + r % 16 * kStepNumbers;
      const T* const from = z.template row<T>(first + r) + k * kStepNumbers;
      // A row that follows soon is on its way from the outer caches.
      if (r + 4 < rows) prefetch(z.template row<T>(first + r + 4) + k * kStepNumbers, count * kStepNumbers);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t columns = z.columns - (k + i) * kStepNumbers;
        Vector<float> x[4];
        if (columns >= kStepNumbers)
          for (int v = 0; v < 4; ++v) x[v] = load<T, float>(from + i * kStepNumbers + 16 * v);
        else
          for (int v = 0; v < 4; ++v) x[v] = load_within<T, float>(from + i * kStepNumbers + 16 * v, columns - 16 * v);
        for (int v = 0; v < 4; ++v) x[v] = scaled(first + r, x[v]);
        Ints limbs[kLimbCount];
        row_limbs<kLimbCount>(x, limbs);
        store_limbs<kLimbCount>(limbs, to + i * kLimbCount * kAmxTileBytes, kAmxTileBytes);
      }
    }
  }

  // The same as right operand, the quads of a row below each other: [step][limb][half of the rows][quad][row][number].
  static void turn_rows(const int8_t* left, int64_t count, int8_t* right) {
    for (int64_t half = 0; half < 2; ++half)
      for (int64_t i = 0; i < count * kLimbCount; ++i) {
        Vector<float> x[16];
        std::memcpy(x, left + (half * count * kLimbCount + i) * kAmxTileBytes, sizeof x);
        transpose<float>(x);
        std::memcpy(right + (2 * i + half) * kAmxTileBytes, x, sizeof x);
      }
  }

  // Right operands of Wz: the rows of up to 2·kChunkSteps panels from p on, and strips of 32 features, kOperandBytes
  // each, [step of 64 rows][limb][half of the features][quad of rows][feature][row].
  void split_columns(int64_t p, int64_t panels, const Range& strips, int8_t* rights) const {
    for (int64_t step = 0; step < (panels + 1) / 2; ++step)
      for (int64_t i = 0; i < 16; ++i) {
        // The order that row_limbs gives to the columns of W.
        const int64_t row = p * kPanel + step * kStepNumbers + 4 * i, quad = i % 4 * 4 + i / 4;
        int8_t* to = rights + 2 * step * kLimbCount * kAmxTileBytes + quad * kStepNumbers;
        for (int64_t f = strips.begin; f < strips.end; ++f, to += kOperandBytes)
          for (int half = 0; half < 2; ++half) {
            const int64_t k = f * kPanel + half * 16, columns = z.columns - k;
            Vector<float> x[4] = {};
            if (row + 4 <= z.rows && columns >= 16)
              for (int r = 0; r < 4; ++r) x[r] = scaled(row + r, load<T, float>(z.template row<T>(row + r) + k));
            else
              for (int r = 0; r < 4; ++r)
                if (row + r < z.rows)
                  x[r] = scaled(row + r, load_within<T, float>(z.template row<T>(row + r) + k, columns));
            Ints limbs[kLimbCount];
            column_limbs<kLimbCount>(x, limbs);
            store_limbs<kLimbCount>(limbs, to + half * kAmxTileBytes, 2 * kAmxTileBytes);
          }
      }
  }

  // result = or += g for the rows of panel p and strips of 32 features, of which `from` has the tiles (32 × 32) one
  // after the other. With `projection`, which is g_i·ẑ_i of each row, all of g is there, and becomes 4(g − (g·ẑ)ẑ)/‖z‖;
  // null: more is to come.
  void store_panel(const float* from, int64_t p, const Range& strips, const Matrix& result, bool add,
                   const double* projection) const {
    const int64_t rows = std::min(kPanel, z.rows - p * kPanel);
    const int64_t begin = strips.begin * kPanel, end = std::min(strips.end * kPanel, z.columns);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t i = p * kPanel + r;
      const T* const own = z.template row<T>(i);
      float* const to = result.row<float>(i);
      const float g_z = projection ? inverse[i] * float(projection[r]) : 0, scale = projection ? 4 * inverse[i] : 1,
                  power = projection ? this->power[i] : 1;
      auto finished = [&](int64_t k, Vector<float> before, Vector<float> z_k) {
        const int64_t strip = k / kPanel - strips.begin;
        const Vector<float> g = before + load<float, float>(from + (strip * kPanel + r) * kPanel + k % kPanel);
        return (g - z_k * power * g_z) * scale * power;
      };
      int64_t k = begin;
      for (; k + 16 <= end; k += 16)
        store<float, float>(to + k, finished(k, add ? load<float, float>(to + k) : Vector<float>{},
                                             projection ? load<T, float>(own + k) : Vector<float>{}));
      if (k < end)
        store_some<float, float>(to + k,
                                 finished(k, add ? load_some<float, float>(to + k, end - k) : Vector<float>{},
                                          projection ? load_some<T, float>(own + k, end - k) : Vector<float>{}),
                                 end - k);
    }
  }

 private:
  static void prefetch(const T* from, int64_t count) {
    for (int64_t i = 0; i < count; i += 64 / sizeof(T)) __builtin_prefetch(from + i);
  }

  // Features of row i as integers, not yet rounded.
  Vector<float> scaled(int64_t i, Vector<float> x) const { return x * power[i] * factor[i]; }

  // G_ij
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
