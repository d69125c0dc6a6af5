// Reductions in a fixed order: the same bits in every run.
#pragma once

#include "numeric.cuh"

namespace itrd {

constexpr int kMaxWarps = 8;  // of a block

struct Sum {
  static constexpr int kNeutral = 0;

  template <class A>
  __device__ A operator()(A a, A b) const {
    return a + b;
  }
};

// The largest of numbers that are not negative.
struct Max {
  static constexpr int kNeutral = 0;

  template <class A>
  __device__ A operator()(A a, A b) const {
    return fmax(a, b);
  }
};

// Reduces over the lanes whose numbers differ in the bits `from` … `to` / 2; every lane gets the result.
template <class A, class Op>
__device__ A reduce_lanes(A x, Op op, int from = 1, int to = kWarp) {
#pragma unroll
  for (int bit = from; bit < to; bit *= 2) x = op(x, __shfl_xor_sync(0xffffffffu, x, bit));
  return x;
}

// Reduces each of x over the block; every thread gets the results. `shared` holds them once per warp and may be reused
// at once.
template <class A, int count, class Op>
__device__ void reduce_block(A (&x)[count], Op op, A* shared) {
  int warp = threadIdx.x / kWarp, slot = threadIdx.x % kMaxWarps;
#pragma unroll
  for (int k = 0; k < count; ++k) {
    x[k] = reduce_lanes(x[k], op);
    if (threadIdx.x % kWarp == 0) shared[warp * count + k] = x[k];
  }
  __syncthreads();
#pragma unroll
  for (int k = 0; k < count; ++k)
    x[k] = reduce_lanes(slot < int(blockDim.x) / kWarp ? shared[slot * count + k] : A(Op::kNeutral), op, 1, kMaxWarps);
  __syncthreads();
}

template <class A, class Op>
__device__ A reduce_block(A x, Op op, A* shared) {
  A values[1] = {x};
  reduce_block(values, op, shared);
  return values[0];
}

// True in all threads of the block that finishes last; that block sees everything the others wrote before.
__device__ inline bool last_block(unsigned* ticket, unsigned blocks, unsigned* shared) {
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) *shared = atomicAdd(ticket, 1u);
  __syncthreads();
  bool last = *shared == blocks - 1;
  __syncthreads();
  if (last) __threadfence();
  return last;
}

// Count, means and centred moments of a pair of columns. The means are relative to a common origin, the pair's first
// row, so that a mean of 10⁴ costs a deviation of 1 nothing; a deviation bounds max|z − mean| to within a factor of n.
template <class A>
struct Moments {
  A count, mean_s, mean_t, m2_s, m2_t, c_st, deviation_s, deviation_t;
};

// Chan's formula: M2 = M2ₐ + M2_b + δ² nₐ n_b / n,  mean = meanₐ + δ n_b / n
template <class A>
__device__ inline Moments<A> merge(const Moments<A>& a, const Moments<A>& b) {
  if (b.count == 0) return a;
  A count = a.count + b.count, share = b.count / count, weight = a.count * share;
  A ds = b.mean_s - a.mean_s, dt = b.mean_t - a.mean_t;
  return {count,
          a.mean_s + ds * share,
          a.mean_t + dt * share,
          a.m2_s + b.m2_s + ds * ds * weight,
          a.m2_t + b.m2_t + dt * dt * weight,
          a.c_st + b.c_st + ds * dt * weight,
          fmax(fmax(a.deviation_s, b.deviation_s), fabs(ds)),
          fmax(fmax(a.deviation_t, b.deviation_t), fabs(dt))};
}

}  // namespace itrd
