// The first launch of every forward pass: norms of rows for the Gram term, moments of columns for the correlation term.
#include "launch.cuh"
#include "row_norms.cuh"

namespace itrd {

// One launch reads all features: the first blocks take the rows' norms, the others the columns' moments.
template <class T>
__global__ void __launch_bounds__(kStreamThreads, kStreamBlocks)
    statistics(const __grid_constant__ Correlation<T> c, const __grid_constant__ Gram<T> g, unsigned* ticket,
               int norm_blocks) {
  ITRD_DYNAMIC_SHARED(shared);
  if (blockIdx.x == 0 && threadIdx.x == 0) *ticket = 0;
  int block = blockIdx.x;
  if (block < norm_blocks)
    row_norms(g.own_rows(), g.ld, block, g.count_blocks, g.counts + block * kRowCounts, reinterpret_cast<int*>(shared));
  else
    column_moments(c, block - norm_blocks, reinterpret_cast<wide_t<T>*>(shared));
}

template <class T>
void launch_statistics(const Correlation<T>& c, const Gram<T>& g, const Finish<T>& finish, cudaStream_t stream) {
  int norm_blocks = finish.mutual_information ? g.count_blocks : 0;
  int moment_blocks = finish.correlation ? c.strips * c.chunks : 0;
  // Half of the warps hand the moments of four columns per thread to the other half.
  size_t shared = kStreamThreads / 2 * 4 * sizeof(Moments<wide_t<T>>);
  launch(statistics<T>, dim3(norm_blocks + moment_blocks), kStreamThreads, shared, stream, c, g, finish.ticket,
         norm_blocks);
}

#define ITRD_INSTANTIATE(T) \
  template void launch_statistics<T>(const Correlation<T>&, const Gram<T>&, const Finish<T>&, cudaStream_t);
ITRD_INSTANTIATE(float)
ITRD_INSTANTIATE(double)
ITRD_INSTANTIATE(__half)
ITRD_INSTANTIATE(__nv_bfloat16)

}  // namespace itrd
