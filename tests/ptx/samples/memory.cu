// Memory spaces, named barriers, asynchronous copies and early exits of CUDA C++, for the emulator's own tests.
#include <cuda_pipeline.h>

#include <cassert>
#include <cstdio>
struct P {
  int a;
  float b;
  double c;
  int d[3];
};
__device__ __noinline__ float sumptr(const float* p, int n) {
  float s = 0;
  for (int i = 0; i < n; i++) s += p[i];
  return s;
}
struct Operands {
  const float *x, *y;
  int factor;
};
extern "C" {
__global__ void structure(Operands p, float* out) {
  int i = threadIdx.x;
  out[i] = p.x[i] * p.factor + p.y[i];
}
__global__ void byval(P p, float* o) {
  int i = threadIdx.x;
  o[i] = p.a + p.b * i + (float)p.c + p.d[i % 3];
}
__global__ void genptr(const float* x, float* o, int n) {  // generic pointers to shared, global and local memory
  __shared__ float sh[64];
  float loc[5];
  int i = threadIdx.x;
  sh[i] = x[i] * 2;
  for (int j = 0; j < 5; j++) loc[j] = x[(i + j) % n];
  __syncthreads();
  const float* p = i % 3 == 0 ? sh : i % 3 == 1 ? x : loc;
  o[i] = sumptr(p, 5);
}
__global__ void named(float* o) {  // warps 0,1 produce for 2,3
  __shared__ float b[64];
  int i = threadIdx.x;
  for (int r = 0; r < 3; r++)
    if (i < 64) {
      b[i] = i * (r + 1);
      asm volatile("bar.arrive 1, 128;" ::: "memory");
      asm volatile("bar.sync 2, 128;" ::: "memory");
    } else {
      asm volatile("bar.sync 1, 128;" ::: "memory");
      o[r * 64 + i - 64] = b[127 - i];
      asm volatile("bar.arrive 2, 128;" ::: "memory");
    }
}
__global__ void pipe(const float* x, float* o, int n) {  // cp.async, every third row only half copied
  __shared__ __align__(16) float b[2][128];
  int i = threadIdx.x;
  float s = 0;
  __pipeline_memcpy_async(&b[0][i], x + i, 4);
  __pipeline_commit();
  for (int k = 0; k < n; k++) {
    if (k + 1 < n) __pipeline_memcpy_async(&b[(k + 1) & 1][i], x + (k + 1) * 128 + i, 4, (k + 1) % 3 == 2 ? 2 : 0);
    __pipeline_commit();
    __pipeline_wait_prior(1);
    __syncthreads();
    s += b[k & 1][127 - i];
    __syncthreads();
  }
  o[i] = s;
}
__global__ void early(const float* x, float* o, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  float v = x[i];
  unsigned m = __activemask();
  for (int k = 16; k; k >>= 1) v += __shfl_down_sync(m, v, k);
  o[i] = v;
  assert(x[i] < 100.f);
  if (x[i] > 1000) printf("%f", x[i]);
}
}
