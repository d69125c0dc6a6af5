// The order in which the Gram term goes through the pairs of rows.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/interface.h"

namespace itrd::ITRD_ISA {

constexpr int64_t PANEL = 32;    // rows that are packed, and multiplied, together
constexpr int64_t MACRO = 1024;  // rows of a macro tile of W

// The panels of n rows, and how many of them are a side of a macro tile.
struct Panels {
  int64_t count, macros, side;
  explicit Panels(int64_t rows)
      : count((rows + PANEL - 1) / PANEL),
        macros((count * PANEL + MACRO - 1) / MACRO),
        side((count + macros - 1) / macros) {}
};

// Two groups of panels, rows × columns of a macro tile of W; equal on the diagonal.
struct Macro {
  int64_t row_begin, row_end, column_begin, column_end;
  bool diagonal() const { return row_begin == column_begin; }
  int64_t rows() const { return row_end - row_begin; }
  int64_t columns() const { return column_end - column_begin; }
};

// Pairs (row panel, column panel) of a macro tile, in blocks of `side` × `side`, each column by column; of a diagonal
// one the upper triangle.
struct Pair {
  int64_t row, column, block;
};
inline std::vector<Pair> pairs_of(const Macro& macro, int64_t side) {
  std::vector<Pair> pairs;
  int64_t block = 0;
  for (int64_t top = macro.row_begin; top < macro.row_end; top += side)
    for (int64_t left = macro.diagonal() ? top : macro.column_begin; left < macro.column_end; left += side, ++block)
      for (int64_t q = left; q < std::min(left + side, macro.column_end); ++q)
        for (int64_t p = top; p < std::min({top + side, macro.row_end, macro.diagonal() ? q + 1 : macro.row_end}); ++p)
          pairs.push_back({p, q, block});
  return pairs;
}

}  // namespace itrd::ITRD_ISA
