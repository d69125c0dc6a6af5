// What a pair loss is asked, and what it answers. One source serves the CPU's vectors, in the namespace of each
// instruction set, and CUDA's scalars: V is a vector of float or double there, and float or double here.
#pragma once

#ifdef ITRD_ISA
#define ITRD_LOSS_NAMESPACE itrd::ITRD_ISA
#define ITRD_LOSS inline
#define ITRD_LOSS_UNROLL _Pragma("GCC unroll 9")
#else
#define ITRD_LOSS_NAMESPACE itrd
#define ITRD_LOSS __device__ inline
#define ITRD_LOSS_UNROLL _Pragma("unroll")
#endif

namespace ITRD_LOSS_NAMESPACE {

// Two coefficients, which multiply the loss's sums (or what a loss makes of them): of a number type.
template <class A>
struct PairCoefficients {
  A first, second;
};

// Entries g of G_s and h of G_t of rows i (own) and j (other), the statistics of both rows, which are 1 or 0 (zero row)
// where none were given and 0 for rows that do not count, and what is the same for all pairs.
template <class V>
struct PairInput {
  V g, h, own_s, own_t, other_s, other_t;
  PairCoefficients<V> c;
  V parameters[2];
};

// What the pair adds to both sums, W = ¼ (∂ℓ_ij/∂g + ∂ℓ_ji/∂g) of student and teacher, and what it adds to the sums of
// the own row. A one-sided loss gives the part of ℓ_ij alone: of the pair seen from its own row.
template <class V>
struct PairTerms {
  V first, second, w_s, w_t, row_s, row_t;
};

// x, or 0 where it is less; NaN stays.
template <class V>
ITRD_LOSS V not_negative(V x) {
  return x < 0 ? V{} : x;
}

// 1/m², and 0 where nothing was counted.
template <class A>
ITRD_LOSS A inverse_square(A m) {
  return m == 0 ? A(0) : 1 / (m * m);
}

}  // namespace ITRD_LOSS_NAMESPACE
