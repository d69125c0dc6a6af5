// The rate of fused multiply-adds that the processor sustains on a register-tiled product of panels in the first-level
// cache: the yardstick for the time of any matrix product. Compiled by the benchmark with -march=native.
#include <omp.h>

#include <chrono>
#include <vector>

namespace {

// Tiles that fill the registers: 24 of 32 accumulate with AVX-512, 12 of 16 with AVX2 and SSE, 24 of 32 on Arm.
#if defined(__AVX512F__)
constexpr int BYTES = 64, ROWS = 12;
#elif defined(__AVX__)
constexpr int BYTES = 32, ROWS = 6;
#elif defined(__aarch64__)
constexpr int BYTES = 16, ROWS = 12;
#else
constexpr int BYTES = 16, ROWS = 6;
#endif
constexpr int LANES = BYTES / int(sizeof(float)), VECTORS = 2, COLUMNS = VECTORS * LANES, DEPTH = 192;
typedef float Vector __attribute__((vector_size(BYTES)));

struct Panels {
  alignas(64) float a[DEPTH][ROWS];
  alignas(64) Vector b[DEPTH][VECTORS];
  alignas(64) Vector c[ROWS][VECTORS];
};

// C += A B
void multiply(Panels& p) {
  Vector c[ROWS][VECTORS] = {};
  for (int k = 0; k < DEPTH; ++k) {
#pragma GCC unroll 12
    for (int i = 0; i < ROWS; ++i) {
      const Vector a = p.a[k][i] - Vector{};
#pragma GCC unroll 2
      for (int j = 0; j < VECTORS; ++j) c[i][j] += a * p.b[k][j];
    }
  }
  for (int i = 0; i < ROWS; ++i)
    for (int j = 0; j < VECTORS; ++j) p.c[i][j] += c[i][j];
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

// Floating-point operations per second of `threads` threads together, measured for about `seconds`; each thread counts
// only what it did while all of them were running. They are OpenMP's, as torch's are, and run where those do.
extern "C" double fma_rate(int threads, double seconds) {
  constexpr int BATCH = 64;
  std::vector<double> rates(threads);
#pragma omp parallel num_threads(threads)
  {
    const int thread = omp_get_thread_num();
    Panels panels;
    for (auto& row : panels.a)
      for (float& value : row) value = 1e-3f * float(thread + 1);
    for (auto& row : panels.b)
      for (Vector& value : row) value = 1e-3f - Vector{};
    for (auto& row : panels.c)
      for (Vector& value : row) value = Vector{};
    for (int i = 0; i < 4 * BATCH; ++i) multiply(panels);
#pragma omp barrier
    const auto start = std::chrono::steady_clock::now();
    double operations = 0;
    do {
      for (int i = 0; i < BATCH; ++i) multiply(panels);
      operations += 2.0 * BATCH * ROWS * COLUMNS * DEPTH;
    } while (seconds_since(start) < seconds);
    volatile float keep = panels.c[0][0][0];
    (void)keep;
    rates[thread] = operations / seconds_since(start);
  }
  double total = 0;
  for (double rate : rates) total += rate;
  return total;
}
