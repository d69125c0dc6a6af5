// Kernels of the kinds that the losses are made of, with bugs that -DBUG=1 to 6 plants, for the emulator's own tests.
#include <cstdint>

#ifndef BUG
#define BUG 0
#endif

__device__ inline void multiply(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Sums of columns: blocks of (32, 8), grid (⌈d/32⌉, any number).
__global__ void colstats(const float* __restrict__ x, double* __restrict__ s, int n, int d) {
  __shared__ float sums[8][33];
  int c = blockIdx.x * 32 + threadIdx.x;
  float acc = 0;
  for (int r = blockIdx.y * blockDim.y + threadIdx.y; r < n; r += gridDim.y * blockDim.y)
    if (c < d) acc += x[(size_t)r * d + c];
  sums[threadIdx.y][threadIdx.x] = acc;
#if BUG != 1
  __syncthreads();
#endif
  if (threadIdx.y == 0) {
    double t = 0;
    for (int i = 0; i < 8; i++) t += sums[i][threadIdx.x];
#if BUG == 2
    if (c < d) s[c] += t;  // no atomic: a race between blocks only
#else
    if (c < d) atomicAdd(s + c, t);
#endif
  }
}
// The sum of all squares: shuffles, shared memory, an atomic.
__global__ void sumsq(const float* __restrict__ x, double* out, int n) {
  __shared__ double w[32];
  double a = 0;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) a += (double)x[i] * x[i];
  for (int m = 16; m; m >>= 1) a += __shfl_xor_sync(0xffffffffu, a, m);
  if (threadIdx.x % 32 == 0) w[threadIdx.x / 32] = a;
  __syncthreads();
  if (threadIdx.x < 32) {
    a = threadIdx.x < blockDim.x / 32 ? w[threadIdx.x] : 0.0;
    for (int m = 16; m; m >>= 1) a += __shfl_xor_sync(0xffffffffu, a, m);
    if (threadIdx.x == 0) atomicAdd(out, a);
  }
}
// G = XᵀX in tiles of 64 × 64 by 256 threads with 4 × 4 entries each, 16 rows at a time; d is a multiple of 4.
__global__ void __launch_bounds__(256) gram(const float* __restrict__ x, float* __restrict__ g, int n, int d) {
  extern __shared__ __align__(16) float tile[];
  float *A = tile, *B = tile + 16 * 64;
  int tid = threadIdx.x, tx = tid % 16, ty = tid / 16, i0 = blockIdx.y * 64, j0 = blockIdx.x * 64;
  float acc[4][4] = {};
  for (int k0 = 0; k0 < n; k0 += 16) {
    int r = tid / 16, c = tid % 16 * 4;
    float4 z = make_float4(0, 0, 0, 0);
#if BUG == 5
    float4 a = (k0 + r < n) ? *(const float4*)(x + (size_t)(k0 + r) * d + i0 + c) : z;  // columns are not guarded
#else
    float4 a = (k0 + r < n && i0 + c < d) ? *(const float4*)(x + (size_t)(k0 + r) * d + i0 + c) : z;
#endif
    float4 b = (k0 + r < n && j0 + c < d) ? *(const float4*)(x + (size_t)(k0 + r) * d + j0 + c) : z;
    *(float4*)(A + r * 64 + c) = a;
    *(float4*)(B + r * 64 + c) = b;
#if BUG != 3
    __syncthreads();
#endif
    for (int k = 0; k < 16; k++) {
      float av[4], bv[4];
      for (int i = 0; i < 4; i++) {
        av[i] = A[k * 64 + ty * 4 + i];
        bv[i] = B[k * 64 + tx * 4 + i];
      }
      for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) acc[i][j] += av[i] * bv[j];
    }
#if BUG != 4
    __syncthreads();
#endif
#if BUG == 6
    if (tid > 200 && k0 == 0) return;
#endif
  }
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < 4; j++) {
      int r = i0 + ty * 4 + i, c = j0 + tx * 4 + j;
      if (r < d && c < d) g[(size_t)r * d + c] = acc[i][j];
    }
}
// G = XᵀX in tf32 on the matrix units, one warp to a tile of 16 × 8.
__global__ void gram_mma(const float* __restrict__ x, float* __restrict__ g, int n, int d) {
  int lane = threadIdx.x, q = lane >> 2, t = lane & 3, i0 = blockIdx.y * 16, j0 = blockIdx.x * 8;
  float c[4] = {0, 0, 0, 0};
  for (int k0 = 0; k0 < n; k0 += 8) {
    uint32_t a[4], b[2];
    auto ld = [&](int r, int col) {
      float v = (r < n && col < d) ? x[(size_t)r * d + col] : 0.f;
      uint32_t u;
      asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(u) : "f"(v));
      return u;
    };
    a[0] = ld(k0 + t, i0 + q);
    a[1] = ld(k0 + t, i0 + q + 8);
    a[2] = ld(k0 + t + 4, i0 + q);
    a[3] = ld(k0 + t + 4, i0 + q + 8);
    b[0] = ld(k0 + t, j0 + q);
    b[1] = ld(k0 + t + 4, j0 + q);
    multiply(c, a, b);
  }
  for (int i = 0; i < 4; i++) {
    int r = i0 + q + 8 * (i / 2), col = j0 + t * 2 + i % 2;
    if (r < d && col < d) g[(size_t)r * d + col] = c[i];
  }
}
