// Tiles in shared memory and their products, on the tensor cores or on the floating-point units.
//
// Both kinds keep the accumulators of mma.sync's layout: lane 4g + t of a warp owns, in each 8×8 square of the warp's
// tile, row g and columns 2t and 2t + 1. So whatever follows a product need not know how it was made.
#pragma once

#include "instructions.cuh"
#include "numeric.cuh"

namespace itrd {

constexpr int kRowBytes = 64;            // of a row of a tile along k: two steps of mma.sync
constexpr int kChunks = kRowBytes / 16;  // of 16 bytes in such a row
constexpr int kStages = 3;               // of shared memory: one is multiplied while the next ones are filled
constexpr int kScratchBytes = 128;       // beside the stages, for sums over the block

// How a block's warps share a product of tile × tile entries: each takes kSquaresM × kSquaresN squares of 8 × 8.
template <int tile>
struct Shape {
  static constexpr int kWarpsM = 2, kWarpsN = tile == 128 ? 4 : 2;
  static constexpr int kThreads = kWarpsM * kWarpsN * kWarp;
  static constexpr int kSquaresM = tile / kWarpsM / 8, kSquaresN = tile / kWarpsN / 8;

  __device__ static int warp() { return threadIdx.x / kWarp; }
  __device__ static int lane() { return threadIdx.x % kWarp; }
  __device__ static int warp_row() { return warp() / kWarpsN * (8 * kSquaresM); }
  __device__ static int warp_column() { return warp() % kWarpsN * (8 * kSquaresN); }
  // The tile's row and first column that this thread owns in squares i, j of its warp.
  __device__ static int row(int i) { return warp_row() + 8 * i + lane() / 4; }
  __device__ static int column(int j) { return warp_column() + 8 * j + lane() % 4 * 2; }
};

// How many blocks a multiprocessor shall hold, which bounds the registers of a thread.
template <class T, int tile>
constexpr int resident_blocks() {
  return tile == 128 || sizeof(T) == 8 ? 1 : 3;
}

// The entries of the product that a thread owns: two neighbours in each square of its warp.
template <class A, int tile>
using Accumulators = A[Shape<tile>::kSquaresM][Shape<tile>::kSquaresN][2];

// Where chunk c, of 16 bytes, of row r of a tile with k along its rows lies in shared memory, in bytes. The permutation
// puts the chunks that eight lanes read at once into different banks.
__device__ inline int swizzled(int r, int c) { return r * kRowBytes + ((c ^ (r >> 1)) & (kChunks - 1)) * 16; }

// 16 bytes of a row.
template <class T>
struct alignas(16) Chunk {
  static constexpr int kSize = 16 / sizeof(T);
  T x[kSize];
};

// Copies one chunk of a row of which only `valid` elements exist (none if `valid` ≤ 0), and puts zeros in place of the
// others. Where rows are not aligned to 16 bytes the copy is not asynchronous.
template <class T>
__device__ inline void copy_chunk(unsigned char* shared, const T* from, int valid, bool aligned) {
  constexpr int kSize = Chunk<T>::kSize;
  valid = valid < 0 ? 0 : valid > kSize ? kSize : valid;
  if (aligned) {
    copy_async(shared, from, valid * int(sizeof(T)));
  } else {
    Chunk<T> chunk = {};
#pragma unroll
    for (int i = 0; i < kSize; ++i)
      if (i < valid) chunk.x[i] = from[i];
    *reinterpret_cast<Chunk<T>*>(shared) = chunk;
  }
}

// Multiplies a chunk in shared memory by a power of two, or puts zeros in the place of whatever it holds.
template <class T>
__device__ inline void scale_chunk(unsigned char* shared, wide_t<T> scale) {
  auto& chunk = *reinterpret_cast<Chunk<T>*>(shared);
  if (scale == 0) {
    chunk = {};
    return;
  }
#pragma unroll
  for (int i = 0; i < Chunk<T>::kSize; ++i) chunk.x[i] = narrow<T>(widen(chunk.x[i]) * scale);
}

// The tensor cores cut off the low 13 bits of a float32. Adding half of the last bit that they keep rounds instead.
__device__ inline uint32_t round_to_tf32(uint32_t x) { return x + 0x1000u; }
__device__ inline float round_to_tf32(float x) {
  return __uint_as_float(round_to_tf32(__float_as_uint(x)) & 0xffffe000u);
}

// Products on the floating-point units, in the precision of the sums.
struct Ieee {
  static constexpr bool kTensor = false;

  // Rounds a weight to what `multiply` takes: here nothing changes.
  template <class A>
  __device__ static A round(A x) {
    return x;
  }

  // acc += a bᵀ over one stage: a (tile × k) and b (tile × k), both with k along the rows.
  template <int tile, class T>
  __device__ static void multiply_rows(Accumulators<wide_t<T>, tile>& acc, const unsigned char* a,
                                       const unsigned char* b) {
    using S = Shape<tile>;
    using A = wide_t<T>;
    constexpr int kSize = Chunk<T>::kSize;
#pragma unroll 1
    for (int c = 0; c < kChunks; ++c) {
      A rows[S::kSquaresM][kSize];
#pragma unroll
      for (int i = 0; i < S::kSquaresM; ++i) {
        auto chunk = *reinterpret_cast<const Chunk<T>*>(a + swizzled(S::row(i), c));
#pragma unroll
        for (int k = 0; k < kSize; ++k) rows[i][k] = widen(chunk.x[k]);
      }
#pragma unroll
      for (int j = 0; j < 2 * S::kSquaresN; ++j) {
        auto chunk = *reinterpret_cast<const Chunk<T>*>(b + swizzled(S::column(j / 2) + j % 2, c));
#pragma unroll
        for (int i = 0; i < S::kSquaresM; ++i)
#pragma unroll
          for (int k = 0; k < kSize; ++k) acc[i][j / 2][j % 2] += rows[i][k] * widen(chunk.x[k]);
      }
    }
  }

  // acc += a b over one stage: a (tile × k) with k along the rows, b (k × tile) with rows `stride` elements apart.
  template <int tile, class T>
  __device__ static void multiply(Accumulators<wide_t<T>, tile>& acc, const unsigned char* a, const T* b, int stride) {
    using S = Shape<tile>;
    using A = wide_t<T>;
    constexpr int kSize = Chunk<A>::kSize;
#pragma unroll 1
    for (int c = 0; c < kChunks; ++c) {
      Chunk<A> rows[S::kSquaresM];
#pragma unroll
      for (int i = 0; i < S::kSquaresM; ++i) rows[i] = *reinterpret_cast<const Chunk<A>*>(a + swizzled(S::row(i), c));
#pragma unroll
      for (int k = 0; k < kSize; ++k)
#pragma unroll
        for (int j = 0; j < S::kSquaresN; ++j) {
          auto pair = *reinterpret_cast<const Pair<T>*>(b + (c * kSize + k) * stride + S::column(j));
#pragma unroll
          for (int i = 0; i < S::kSquaresM; ++i) {
            acc[i][j][0] += rows[i].x[k] * widen(pair.first);
            acc[i][j][1] += rows[i].x[k] * widen(pair.second);
          }
        }
    }
  }
};

// Products on the tensor cores: float32 as tf32, float16 and bfloat16 exactly, sums in float32.
struct TensorCores {
  static constexpr bool kTensor = true;

  __device__ static float round(float x) { return round_to_tf32(x); }

  // As Ieee's.
  template <int tile, class T>
  __device__ static void multiply_rows(Accumulators<float, tile>& acc, const unsigned char* a, const unsigned char* b) {
    using S = Shape<tile>;
    int lane = S::lane();
#pragma unroll
    for (int step = 0; step < kChunks / 2; ++step) {
      uint32_t rows[S::kSquaresM / 2][4], columns[S::kSquaresN / 2][4];
#pragma unroll
      for (int i = 0; i < S::kSquaresM / 2; ++i)
        load_rounded<T>(rows[i], a + swizzled(S::warp_row() + 16 * i + lane % 16, 2 * step + lane / 16));
#pragma unroll
      for (int j = 0; j < S::kSquaresN / 2; ++j)
        load_rounded<T>(columns[j],
                        b + swizzled(S::warp_column() + 16 * j + lane / 16 * 8 + lane % 8, 2 * step + lane / 8 % 2));
#pragma unroll
      for (int i = 0; i < S::kSquaresM / 2; ++i)
#pragma unroll
        for (int j = 0; j < S::kSquaresN; ++j)
          multiply_squares<tile>(acc, i, j, rows[i], {columns[j / 2][j % 2 * 2], columns[j / 2][j % 2 * 2 + 1]}, T());
    }
  }

  // As Ieee's. The weights in a have been rounded to tf32 already; the elements of b become tf32 here, which float16
  // and bfloat16 do exactly.
  template <int tile, class T>
  __device__ static void multiply(Accumulators<float, tile>& acc, const unsigned char* a, const T* b, int stride) {
    using S = Shape<tile>;
    int lane = S::lane();
#pragma unroll
    for (int step = 0; step < kChunks / 2; ++step) {
      uint32_t rows[S::kSquaresM / 2][4], columns[S::kSquaresN][2];
#pragma unroll
      for (int i = 0; i < S::kSquaresM / 2; ++i)
        load_matrices(rows[i], a + swizzled(S::warp_row() + 16 * i + lane % 16, 2 * step + lane / 16));
#pragma unroll
      for (int j = 0; j < S::kSquaresN; ++j)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const T* row = b + (8 * step + 4 * half + lane % 4) * stride;
          columns[j][half] = round_to_tf32(__float_as_uint(widen(row[S::warp_column() + 8 * j + lane / 4])));
        }
#pragma unroll
      for (int i = 0; i < S::kSquaresM / 2; ++i)
#pragma unroll
        for (int j = 0; j < S::kSquaresN; ++j)
          multiply_squares<tile>(acc, i, j, rows[i], {columns[j][0], columns[j][1]}, 0.0f);
    }
  }

 private:
  template <class T>
  __device__ static void load_rounded(uint32_t (&r)[4], const unsigned char* row) {
    load_matrices(r, row);
    if constexpr (sizeof(T) == 4)
#pragma unroll
      for (int i = 0; i < 4; ++i) r[i] = round_to_tf32(r[i]);
  }

  template <int tile, class T>
  __device__ static void multiply_squares(Accumulators<float, tile>& acc, int i, int j, const uint32_t (&a)[4],
                                          const uint32_t (&b)[2], T type) {
    float c[4] = {acc[2 * i][j][0], acc[2 * i][j][1], acc[2 * i + 1][j][0], acc[2 * i + 1][j][1]};
    itrd::multiply(c, a, b, type);
    acc[2 * i][j][0] = c[0];
    acc[2 * i][j][1] = c[1];
    acc[2 * i + 1][j][0] = c[2];
    acc[2 * i + 1][j][1] = c[3];
  }
};

}  // namespace itrd
