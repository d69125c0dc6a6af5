// The last launch of a forward pass without a Gram term; with one, the blocks of gram_tiles.cu do the same.
#include "launch.cuh"

namespace itrd {

// Each thread finishes one column; the last block to be done forms the loss.
template <class T>
__global__ void __launch_bounds__(kStreamThreads, kStreamBlocks)
    correlation(const __grid_constant__ Correlation<T> c, const __grid_constant__ Finish<T> finish) {
  ITRD_DYNAMIC_SHARED(shared);
  int j = blockIdx.x * blockDim.x + threadIdx.x;
  if (j < c.d) finish_column(c, j);
  if (!last_block(finish.ticket, gridDim.x, reinterpret_cast<unsigned*>(shared))) return;
  wide_t<T> loss = finish_correlation(c, reinterpret_cast<wide_t<T>*>(shared));
  if (threadIdx.x == 0) finish.write(loss, 0);
}

template <class T>
void launch_correlation(const Correlation<T>& c, const Finish<T>& finish, cudaStream_t stream) {
  dim3 grid((c.d + kStreamThreads - 1) / kStreamThreads);
  launch(correlation<T>, grid, kStreamThreads, kStreamWarps * sizeof(wide_t<T>), stream, c, finish);
}

#define ITRD_INSTANTIATE(T) template void launch_correlation<T>(const Correlation<T>&, const Finish<T>&, cudaStream_t);
ITRD_INSTANTIATE(float)
ITRD_INSTANTIATE(double)
ITRD_INSTANTIATE(__half)
ITRD_INSTANTIATE(__nv_bfloat16)

}  // namespace itrd
