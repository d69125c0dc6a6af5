// The instructions of csrc/cuda/instructions.cuh, by the fragment layouts of the PTX manual.
#pragma once

#include "cuda_bf16.h"
#include "cuda_fp16.h"
#include "cuda_runtime.h"

#define ITRD_DYNAMIC_SHARED(name) unsigned char* name = emulation::machine().shared

namespace itrd {

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, int block, size_t shared, cudaStream_t,
            const Arguments&... arguments) {
  emulation::run({grid.x, grid.y, grid.z}, unsigned(block), shared, [&] { kernel(arguments...); });
}

inline void copy_async(void* shared, const void* global, int bytes) {
  bool aligned = reinterpret_cast<uintptr_t>(shared) % 16 == 0 && reinterpret_cast<uintptr_t>(global) % 16 == 0;
  if (!aligned) emulation::fail("an asynchronous copy is not aligned to 16 bytes");
  emulation::copy_issue(shared, global, bytes);
}
inline void copy_commit() { emulation::copy_commit(); }
template <int pending>
void copy_wait() {
  emulation::copy_wait(pending);
}

inline void load_matrices(uint32_t (&r)[4], const void* row) {
  struct Arguments {
    uint32_t* r;
    const void* row;
  } arguments = {r, row};
  if (reinterpret_cast<uintptr_t>(row) % 16) emulation::fail("ldmatrix is not aligned to 16 bytes");
  emulation::warp_instruction<Arguments>(arguments, [](Arguments* const* lanes) {
    // Lane l of matrix m receives word l mod 4 of row l / 4, whose address lane 8m + l / 4 gave.
    for (int m = 0; m < 4; ++m)
      for (int l = 0; l < emulation::kLanes; ++l)
        std::memcpy(&lanes[l]->r[m], static_cast<const char*>(lanes[8 * m + l / 4]->row) + l % 4 * 4, 4);
  });
}

namespace emulated {

// Element e of a fragment register of one or two elements.
inline float element(uint32_t r, int, float) { return __uint_as_float(r & 0xffffe000u); }
inline float element(uint32_t r, int e, __half) { return __half2float({uint16_t(r >> 16 * e)}); }
inline float element(uint32_t r, int e, __nv_bfloat16) { return __bfloat162float({uint16_t(r >> 16 * e)}); }

struct Fragments {
  float* c;
  const uint32_t *a, *b;
};

// With p elements to a register, k = 8p: lane 4g + t holds of a: rows g, g + 8 and columns pt + e, pt + e + 4p; of b:
// rows pt + e, pt + e + 4p and column g; of c: rows g, g + 8 and columns 2t, 2t + 1.
template <class T>
void multiply_warp(Fragments* const* lanes) {
  constexpr int p = sizeof(T) == 4 ? 1 : 2, depth = 8 * p;
  float a[16][depth], b[depth][8];
  for (int lane = 0; lane < emulation::kLanes; ++lane)
    for (int e = 0; e < p; ++e) {
      int g = lane / 4, k = lane % 4 * p + e;
      for (int r = 0; r < 4; ++r) a[g + r % 2 * 8][k + r / 2 * 4 * p] = element(lanes[lane]->a[r], e, T());
      for (int r = 0; r < 2; ++r) b[k + r * 4 * p][g] = element(lanes[lane]->b[r], e, T());
    }
  for (int lane = 0; lane < emulation::kLanes; ++lane)
    for (int r = 0; r < 4; ++r) {
      int row = lane / 4 + r / 2 * 8, column = lane % 4 * 2 + r % 2;
      for (int k = 0; k < depth; ++k) lanes[lane]->c[r] += a[row][k] * b[k][column];
    }
}

}  // namespace emulated

template <class T>
void multiply(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], T) {
  emulated::Fragments fragments = {c, a, b};
  emulation::warp_instruction<emulated::Fragments>(fragments, emulated::multiply_warp<T>);
}

}  // namespace itrd
