// The last launch of a panel of pairs: sums over tiles, in their order.
#include <algorithm>

#include "launch.cuh"
#include "pairs.cuh"
#include "streaming.cuh"

namespace itrd {

// A thread takes a row; the first block also takes the sums of the loss, in double.
template <class T>
__global__ void __launch_bounds__(kStreamThreads, kStreamBlocks) pair_sums(const __grid_constant__ Pairs<T> p) {
  using A = wide_t<T>;
  ITRD_DYNAMIC_SHARED(shared);
  const Gram<T>& g = p.gram;
  int r = int(blockIdx.x * blockDim.x + threadIdx.x), row = g.row0 + r;
  if (p.row_sums && r < g.rows && row < g.n) {
    A sum_s = 0, sum_t = 0;
    for (int b = 0; b < g.tiles; ++b) {
      sum_s += p.partial_row_sums_s[int64_t(b) * g.rows + r];
      sum_t += p.partial_row_sums_t[int64_t(b) * g.rows + r];
    }
    p.row_sums[row] = sum_s;
    p.row_sums[int64_t(g.n) + row] = sum_t;
  }
  if (!p.sums || blockIdx.x > 0) return;
  double sums[2] = {};
  for (int b = threadIdx.x; b < p.slots; b += blockDim.x) {
    sums[0] += g.losses[2 * int64_t(b)];
    sums[1] += g.losses[2 * int64_t(b) + 1];
  }
  reduce_block(sums, Sum(), reinterpret_cast<double*>(shared));
  RowCounts counts(g, reinterpret_cast<int*>(shared));
  if (threadIdx.x > 0) return;
  p.sums[0] = sums[0];
  p.sums[1] = sums[1];
  p.sums[2] = counts.m_s;
  p.sums[3] = counts.m_st;
}

template <class T>
void launch_pair_sums(const Pairs<T>& p, cudaStream_t stream) {
  int rows = p.row_sums ? std::min(p.gram.rows, p.gram.n - p.gram.row0) : 0;
  if (!rows && !p.sums) return;
  dim3 grid(std::max(1, (rows + kStreamThreads - 1) / kStreamThreads));
  launch(pair_sums<T>, grid, kStreamThreads, kStreamWarps * 2 * sizeof(double), stream, p);
}

#define ITRD_INSTANTIATE(T) template void launch_pair_sums<T>(const Pairs<T>&, cudaStream_t);
ITRD_INSTANTIATE(float)
ITRD_INSTANTIATE(double)
ITRD_INSTANTIATE(__half)
ITRD_INSTANTIATE(__nv_bfloat16)

}  // namespace itrd
