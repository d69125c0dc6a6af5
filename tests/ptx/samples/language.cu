// Arithmetic, control flow, atomics and warp collectives of CUDA C++, for the emulator's own tests.
#include <cuda_fp16.h>
extern "C" {
__global__ void fmath(const double* x, const float* f, double* o, float* q, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  double v = x[i];
  o[i] = exp(v);
  o[n + i] = log(fabs(v));
  o[2 * n + i] = pow(fabs(v), 1.7);
  o[3 * n + i] = sin(v);
  o[4 * n + i] = v / 3.1;
  o[5 * n + i] = erf(v);
  float w = f[i];
  q[i] = expf(w);
  q[n + i] = logf(fabsf(w));
  q[2 * n + i] = powf(fabsf(w), 1.7f);
  q[3 * n + i] = sinf(w * 100000.f);
  q[4 * n + i] = w / 3.1f;
  q[5 * n + i] = tanhf(w);
}
__global__ void imath(const long long* a, const long long* b, long long* o, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  long long u = a[i], v = b[i], *p = o + i;
  p[0] = u / v;
  p[n] = u % v;
  p[2 * n] = __mul64hi(u, v);
  p[3 * n] = (long long)(((__int128)u * v) >> 40);
  p[4 * n] = (int)u / ((int)v | 1);
  p[5 * n] = __clzll(u) * 100 + __popcll(v);
}
__device__ __noinline__ float helper(float a, float b, int* k) {
  *k += (int)a;
  return a > b ? a - b : b * 2;
}
__constant__ float tab[5] = {1.f, 2.f, 3.f, 4.f, 5.f};
__device__ int counter = 7;
__global__ void flow(const int* a, float* o, int* h, unsigned* w, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  int loc[8];
  float r = 0;
  int k = 0;
  __shared__ int hist[8];
  if (threadIdx.x < 8) hist[threadIdx.x] = 0;
  __syncthreads();
  int v = i < n ? a[i] : 0;
  for (int j = 0; j < 8; j++) loc[(j * 3 + v) & 7] = j * v;
  switch (v & 7) {
    case 0:
      r = 1.5f;
      break;
    case 1:
      r = v * 2.f;
      break;
    case 2:
      r = helper(v, 3, &k);
      break;
    case 3:
      r = loc[v & 7];
      break;
    case 4:
      r = tab[v % 5];
      break;
    case 5:
      for (int j = 0; j < v % 13; j++) r += j;
      break;
    default:
      r = -1;
  }
  atomicAdd(&hist[v & 7], 1);
  int cnt = __syncthreads_count(v & 1);
  if (i < n) o[i] = r + loc[(v >> 3) & 7] + k * 1000 + cnt * 0.25f;
  if (threadIdx.x < 8) atomicAdd(h + threadIdx.x, hist[threadIdx.x]);
  if (threadIdx.x == 0) {
    atomicAdd(&counter, 1);
    atomicMax(h + 8, v);
    atomicCAS(h + 9, 0, 5);
  }
  unsigned b = __ballot_sync(~0u, v & 1), m = __match_any_sync(~0u, v & 3);
  int s = __reduce_add_sync(~0u, v), up = __shfl_up_sync(~0u, v, 3), dn = __shfl_down_sync(~0u, v, 5, 16),
      ix = __shfl_sync(~0u, v, v & 31);
  if (i < n) {
    unsigned* p = w + i;
    p[0] = b;
    p[n] = m;
    p[2 * n] = s;
    p[3 * n] = up;
    p[4 * n] = dn;
    p[5 * n] = ix;
  }
}
__global__ void spin(int* lock, double* acc) {
  if (threadIdx.x == 0) {
    while (atomicCAS(lock, 0, 1) != 0) {
    }
    __threadfence();
    *acc += 1;
    __threadfence();
    atomicExch(lock, 0);
  }
}
}
