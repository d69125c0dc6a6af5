// The order in which the Gram engines go through the pairs of rows.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/interface.h"

namespace itrd::ITRD_ISA {

constexpr int64_t kPanel = 32;        // rows that are packed, and multiplied, together
constexpr int64_t kBlockRows = 1024;  // rows of a block of W, at most

// The panels of n rows, and the blocks that they are in. W is cut into blocks × blocks blocks of per_block × per_block
// tiles, of which each is kPanel × kPanel entries, those of a panel of rows and a panel of columns.
struct Panels {
  int64_t count, blocks, per_block;
  explicit Panels(int64_t rows)
      : count((rows + kPanel - 1) / kPanel),
        blocks(std::max<int64_t>((count * kPanel + kBlockRows - 1) / kBlockRows, 1)),
        per_block(std::max<int64_t>((count + blocks - 1) / blocks, 1)) {}
};

// A block of W: panels [row_begin, row_end) × [column_begin, column_end); on the diagonal of a triangle, where rows and
// columns are of the same input, the two are equal.
struct Block {
  int64_t row_begin, row_end, column_begin, column_end;
  bool rectangle = false;
  bool diagonal() const { return !rectangle && row_begin == column_begin; }
  int64_t rows() const { return row_end - row_begin; }
  int64_t columns() const { return column_end - column_begin; }
};

// Which blocks of W there are: those on and above the diagonal, where each pair of rows of one input stands for its
// mirror image too; or all, where the columns are other rows.
struct Schedule {
  Panels rows, columns;
  bool triangle;

  explicit Schedule(int64_t n) : rows(n), columns(n), triangle(true) {}
  Schedule(int64_t rows, int64_t columns) : rows(rows), columns(columns), triangle(false) {}

  // Calls visit(block) for each of them, in one order.
  template <class F>
  void each_block(F&& visit) const {
    for (int64_t top = 0; top < rows.count; top += rows.per_block)
      for (int64_t left = triangle ? top : 0; left < columns.count; left += columns.per_block)
        visit(Block{top, std::min(top + rows.per_block, rows.count), left,
                    std::min(left + columns.per_block, columns.count), !triangle});
  }
};

// The panel of rows and the panel of columns of a tile, and the group of tiles that it is formed with.
struct PanelPair {
  int64_t row, column, group;
};

// The pairs of panels of a block in groups of `side` × `side`, each column by column; of a block on the diagonal those
// of the upper triangle.
inline std::vector<PanelPair> pairs_of(const Block& block, int64_t side) {
  std::vector<PanelPair> pairs;
  int64_t group = 0;
  for (int64_t top = block.row_begin; top < block.row_end; top += side)
    for (int64_t left = block.diagonal() ? top : block.column_begin; left < block.column_end; left += side, ++group)
      for (int64_t q = left; q < std::min(left + side, block.column_end); ++q)
        for (int64_t p = top; p < std::min({top + side, block.row_end, block.diagonal() ? q + 1 : block.row_end}); ++p)
          pairs.push_back({p, q, group});
  return pairs;
}

}  // namespace itrd::ITRD_ISA
