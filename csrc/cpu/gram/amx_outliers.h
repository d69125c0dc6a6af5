// Entries of W that dominate their rows, and would leave the others few bits: they are multiplied on their own.
#pragma once

#include <vector>

#include "cpu/gram/amx_operand.h"

namespace itrd::ITRD_ISA {

// An entry W_ij unit_j; its row i is counted from the first of a task.
struct Outlier {
  int64_t row, column;
  float weight;
};

// Whether the largest of a row's entries is far beyond what `count` entries of one size would have.
inline bool dominates(float largest, float square, int64_t count) {
  constexpr float far = 12;
  return largest * largest * float(count) > far * far * (square - largest * largest);
}

// Takes entries that dominate what is left of a row out of it, a few at most; returns the largest that stays.
__attribute__((noinline)) inline float take_out(float* row, int64_t count, int64_t i, int64_t first_column,
                                                std::vector<Outlier>& outliers) {
  constexpr int most_taken = 4;
  for (int taken = 0;; ++taken) {
    int64_t most = 0;
    float square = 0;
    for (int64_t j = 0; j < count; ++j) {
      square += row[j] * row[j];
      if (std::fabs(row[j]) > std::fabs(row[most])) most = j;
    }
    const float largest = std::fabs(row[most]);
    if (taken == most_taken || largest == 0 || !dominates(largest, square, count)) return largest;
    outliers.push_back({i, first_column + most, row[most]});
    row[most] = 0;
  }
}

// sums += W_ij z_j of the outliers for a section of the strips of features, whose tiles lie one after the other.
template <class T>
void add_outliers(const AmxOperand<T>& z, const std::vector<Outlier>& outliers, const Range& section, float* sums) {
  const int64_t row = (section.end - section.begin) * kPanel * kPanel;
  for (const Outlier& outlier : outliers) {
    const T* const from = z.z.template row<T>(outlier.column);
    const float weight = outlier.weight * (z.factor[outlier.column] / kFirstLimbValue<kLimbs<T>>);
    float* const to = sums + outlier.row / kPanel * row + outlier.row % kPanel * kPanel;
    const int64_t end = std::min(section.end * kPanel, z.z.columns);
    for (int64_t k = section.begin * kPanel; k < end; k += 16) {
      float* const at = to + (k / kPanel - section.begin) * kPanel * kPanel + k % kPanel;
      const Vector<float> x = load_within<T, float>(from + k, end - k) * z.power[outlier.column];
      store<float, float>(at, load<float, float>(at) + weight * x);
    }
  }
}

}  // namespace itrd::ITRD_ISA
