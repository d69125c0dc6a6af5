// The first launch of a sweep over pairs: norms and statistics of own and column rows.
#include "launch.cuh"
#include "pairs.cuh"
#include "row_norms.cuh"

namespace itrd {

// The first blocks take the column rows, and the others the own rows where these are different ones.
template <class T>
__global__ void __launch_bounds__(kStreamThreads, kStreamBlocks) pair_rows(const __grid_constant__ Pairs<T> p) {
  ITRD_DYNAMIC_SHARED(shared);
  const Gram<T>& g = p.gram;
  int block = int(blockIdx.x), *counts = g.counts + block * kRowCounts, *scratch = reinterpret_cast<int*>(shared);
  if (block < p.column_blocks)
    row_norms(g.column_rows(), p.columns.padded, block, p.column_blocks, counts, scratch, p.columns);
  else
    row_norms(g.own_rows(), p.own.padded, block - p.column_blocks, g.count_blocks - p.column_blocks, counts, scratch,
              p.own);
}

template <class T>
void launch_pair_rows(const Pairs<T>& p, cudaStream_t stream) {
  size_t shared = kStreamWarps * kRowCounts * sizeof(int);
  launch(pair_rows<T>, dim3(p.gram.count_blocks), kStreamThreads, shared, stream, p);
}

#define ITRD_INSTANTIATE(T) template void launch_pair_rows<T>(const Pairs<T>&, cudaStream_t);
ITRD_INSTANTIATE(float)
ITRD_INSTANTIATE(double)
ITRD_INSTANTIATE(__half)
ITRD_INSTANTIATE(__nv_bfloat16)

}  // namespace itrd
