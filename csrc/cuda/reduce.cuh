// Reductions over a warp and over a block, in a fixed order, so that every run gives the same bits; and the ticket by
// which the last block of a launch knows that it is the last.
#pragma once

#include "numeric.cuh"

namespace itrd {

constexpr int kMaxWarps = 8;  // that a block may have

struct Sum {
  static constexpr int kNeutral = 0;

  template <class A>
  __device__ A operator()(A a, A b) const {
    return a + b;
  }
};

// The largest of several numbers that are not negative.
struct Max {
  static constexpr int kNeutral = 0;

  template <class A>
  __device__ A operator()(A a, A b) const {
    return fmax(a, b);
  }
};

// Reduces x over the lanes of a warp whose numbers differ in the bits `from` … `to` / 2. Every lane gets the result.
template <class A, class Op>
__device__ A reduce_lanes(A x, Op op, int from = 1, int to = kWarp) {
#pragma unroll
  for (int bit = from; bit < to; bit *= 2) x = op(x, __shfl_xor_sync(0xffffffffu, x, bit));
  return x;
}

// Reduces each of x over the block, and gives every thread the results. `shared` has room for `count` numbers of each
// warp, and may be used again as soon as this returns.
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

// True in all threads of the block that is the last of `blocks` to come here. That block sees everything that the
// others wrote before they came. `ticket` counts them in global memory; `shared` has room for one number.
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

}  // namespace itrd
