// One sweep over pairs of rows with a loss of csrc/losses: own rows × column rows, or each pair of the own rows once.
#pragma once

#include "gram.cuh"

// These take log_of from numeric.cuh.
#include "../losses/all.h"

namespace itrd {

// Which rows of a factor count, and their statistics: those given, else 1 for a row that is not zero, 0 for the others.
template <class A>
struct RowMarks {
  const bool* keep;  // (n) false for a row that is left out; null: every row counts
  const A* given;    // (2, n) of student and teacher, `stride` elements apart; null: none were given
  int64_t stride;
  A* statistics;  // (2, padded) what the tiles read, 0 beyond n
  int n, padded;
  bool counted;  // whether these are the column rows, whose counts the loss takes

  __device__ bool has(int i) const { return !keep || keep[i]; }
  __device__ void note(int i, A alive_s, A alive_t) const {
    bool counts = i < n && has(i);
    statistics[i] = !counts ? 0 : given ? given[i] : alive_s;
    statistics[padded + i] = !counts ? 0 : given ? given[stride + i] : alive_t;
  }
};

// One launch of a sweep.
template <class T>
struct Pairs {
  using A = wide_t<T>;
  Gram<T> gram;
  RowMarks<A> own, columns;  // the same where the pairs are those of the own rows
  int column_blocks;         // of gram.count_blocks; the others are those of the own rows, and count extreme rows alone
  int offset;                // own row i is column row i + offset
  PairLossKind kind;
  bool one_sided;
  A parameters[kMostParameters];
  const A* coefficients;                       // (2); null: from the counts
  A *partial_row_sums_s, *partial_row_sums_t;  // (tiles, rows) sums over the columns of each tile; null: none wanted
  A* row_sums;                                 // (2, n) of student and teacher; null like the parts
  double* sums;                                // (4) the loss's two sums, m_s and m_st; null but for the last panel
  int slots;                                   // rows of gram.losses
};

// What the pair adds, by the loss of that kind.
template <class A>
__device__ inline PairTerms<A> pair_terms(PairLossKind kind, const PairInput<A>& x) {
  switch (kind) {
#define ITRD_PAIR_LOSS_TERMS(type, ...) \
  case PairLossKind::type:              \
    return type::of(x);
    ITRD_PAIR_LOSSES(ITRD_PAIR_LOSS_TERMS)
#undef ITRD_PAIR_LOSS_TERMS
  }
  return {};
}

template <class A>
__device__ inline PairCoefficients<A> pair_coefficients(PairLossKind kind, A m_s, A m_st, const A* parameters) {
  switch (kind) {
#define ITRD_PAIR_LOSS_COEFFICIENTS(type, ...) \
  case PairLossKind::type:                     \
    return type::coefficients(m_s, m_st, parameters);
    ITRD_PAIR_LOSSES(ITRD_PAIR_LOSS_COEFFICIENTS)
#undef ITRD_PAIR_LOSS_COEFFICIENTS
  }
  return {};
}

// Writes norms, statistics and counts of own and column rows.
template <class T>
void launch_pair_rows(const Pairs<T>& p, cudaStream_t stream);

// Writes a panel of W, and what its tiles add to the sums.
template <class T>
void launch_pair_tiles(bool tensor, const Pairs<T>& p, cudaStream_t stream);

// Adds up the panel's row sums, and with `sums` those of all tiles.
template <class T>
void launch_pair_sums(const Pairs<T>& p, cudaStream_t stream);

// Rows of a tile, of which there is one size for each type: all losses together are a large kernel.
template <class T>
constexpr int kPairTile = sizeof(T) == 8 ? 32 : 64;

}  // namespace itrd
