// What the kernels that read their features once have in common: the size of a block, and the four columns that each of
// its threads owns.
#pragma once

#include "numeric.cuh"

namespace itrd {

constexpr int kStreamThreads = 256, kStreamWarps = kStreamThreads / kWarp;
constexpr int kStreamBlocks = 1;          // that a multiprocessor shall hold at least
constexpr int kStripColumns = 4 * kWarp;  // that a warp owns

// `count` neighbouring elements of a row, read or written in one access.
template <class T, int count>
struct alignas(count * sizeof(T)) Neighbours {
  T x[count];
};

// The four columns of a thread within a strip of 128 columns. Where rows may be read in vectors the four are neighbours
// (in float64 two and two, so that a warp always reads whole rows of sectors); elsewhere they are 32 columns apart.
template <class A>
struct Columns {
  static constexpr int kNeighbours = sizeof(A) == 8 ? 2 : 4;
  int first, end;  // the thread's first column, and the number of columns that the matrix has
  bool vector;     // whether rows may be read in vectors

  __device__ Columns(int strip, int width, bool vector)
      : first(strip * kStripColumns + int(threadIdx.x % kWarp) * (vector ? kNeighbours : 1)),
        end(width),
        vector(vector) {}
  __device__ int column(int q) const {
    return first + (vector ? q / kNeighbours * kNeighbours * kWarp + q % kNeighbours : q * kWarp);
  }
  __device__ bool valid(int q) const { return column(q) < end; }

  // Reads the four columns of a row, with zeros for those beyond the matrix.
  template <class T>
  __device__ void load(const T* row, A (&x)[4]) const {
    if (vector) {
#pragma unroll
      for (int q = 0; q < 4; q += kNeighbours) {
        Neighbours<T, kNeighbours> several = {};
        if (valid(q)) several = *reinterpret_cast<const Neighbours<T, kNeighbours>*>(row + column(q));
#pragma unroll
        for (int i = 0; i < kNeighbours; ++i) x[q + i] = widen(several.x[i]);
      }
    } else {
#pragma unroll
      for (int q = 0; q < 4; ++q) x[q] = valid(q) ? widen(row[column(q)]) : 0;
    }
  }

  // Writes the four columns of a row, but for those beyond the matrix.
  template <class T>
  __device__ void store(T* row, const A (&x)[4]) const {
    if (vector) {
#pragma unroll
      for (int q = 0; q < 4; q += kNeighbours) {
        Neighbours<T, kNeighbours> several;
#pragma unroll
        for (int i = 0; i < kNeighbours; ++i) several.x[i] = narrow<T>(x[q + i]);
        if (valid(q)) *reinterpret_cast<Neighbours<T, kNeighbours>*>(row + column(q)) = several;
      }
    } else {
#pragma unroll
      for (int q = 0; q < 4; ++q)
        if (valid(q)) row[column(q)] = narrow<T>(x[q]);
    }
  }
};

}  // namespace itrd
