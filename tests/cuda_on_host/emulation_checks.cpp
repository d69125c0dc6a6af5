// Small kernels that show what emulation.h computes and what it refuses: emulation_checks NAME.
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "instructions.h"

namespace {

constexpr int kThreads = 64;

void need(bool good, const char* what) {
  if (good) return;
  std::printf("wrong: %s\n", what);
  std::exit(1);
}

template <class Kernel>
void run(Kernel kernel, int blocks = 1, size_t shared = 1024) {
  std::function<void()> body = kernel;
  emulation::run({unsigned(blocks), 1, 1}, kThreads, shared, body);
}

void shuffles() {
  std::vector<int> out(kThreads);
  run([&] { out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, int(threadIdx.x), 5); });
  for (int i = 0; i < kThreads; ++i) need(out[i] == (i ^ 5), "shuffle");
}

void barriers_order_shared_memory() {
  std::vector<int> out(kThreads);
  run([&] {
    auto* shared = reinterpret_cast<int*>(emulation::machine().shared);
    for (int round = 0; round < 3; ++round) {
      shared[threadIdx.x] = int(threadIdx.x) + round;
      __syncthreads();
      out[threadIdx.x] = shared[(threadIdx.x + 33) % kThreads];
      __syncthreads();
    }
  });
  for (int i = 0; i < kThreads; ++i) need(out[i] == (i + 33) % kThreads + 2, "barrier");
}

void shared_memory_starts_as_nan() {
  run([&] { need(std::isnan(reinterpret_cast<float*>(emulation::machine().shared)[threadIdx.x]), "fresh memory"); }, 2);
}

void copies_arrive_at_their_wait() {
  std::vector<float> from(4 * kThreads, 3.0f);
  run([&] {
    auto* to = reinterpret_cast<float*>(emulation::machine().shared) + 4 * threadIdx.x;
    itrd::copy_async(to, &from[4 * threadIdx.x], 8);
    itrd::copy_commit();
    itrd::copy_commit();
    itrd::copy_wait<2>();
    need(std::isnan(to[0]), "a copy that nobody waited for");
    itrd::copy_wait<1>();
    need(to[0] == 3 && to[1] == 3 && to[2] == 0 && to[3] == 0, "a copy with zeros behind it");
  });
}

// Matrices filled through ldmatrix, against a product by the book.
template <class T>
void products(T (*narrow)(float)) {
  constexpr int depth = 32 / sizeof(T);
  alignas(16) static T a[16][depth], b[8][depth];
  auto value = [](int i, int k) { return float((3 * i + 5 * k) % 7 - 3); };
  for (int k = 0; k < depth; ++k) {
    for (int i = 0; i < 16; ++i) a[i][k] = narrow(value(i, k));
    for (int j = 0; j < 8; ++j) b[j][k] = narrow(value(j + 2, k));
  }
  static float c[16][8];
  run([&] {
    int lane = threadIdx.x % 32;
    uint32_t ra[4], rb[4];
    itrd::load_matrices(ra, &a[lane % 16][lane / 16 * (depth / 2)]);
    itrd::load_matrices(rb, &b[lane % 8][lane / 8 % 2 * (depth / 2)]);
    float sum[4] = {1, 1, 1, 1};
    itrd::multiply(sum, ra, {rb[0], rb[1]}, T());
    for (int r = 0; r < 4; ++r) c[lane / 4 + r / 2 * 8][lane % 4 * 2 + r % 2] = sum[r];
  });
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 8; ++j) {
      float exact = 1;
      for (int k = 0; k < depth; ++k) exact += value(i, k) * value(j + 2, k);
      need(c[i][j] == exact, "matrix product");
    }
}

void half_precision() {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    float h = __half2float({uint16_t(bits)}), b = __bfloat162float({uint16_t(bits)});
    need(std::isnan(h) || __float2half_rn(h).bits == bits, "float16 there and back");
    need(std::isnan(b) || __float2bfloat16_rn(b).bits == bits, "bfloat16 there and back");
    // Halfway to the next number the even one is nearest; a little further the next.
    float next = __half2float({uint16_t(bits + 1)});
    if ((bits & 0x7fff) >= 0x7bff || std::isnan(next)) continue;
    float middle = h + (next - h) / 2;
    need(__float2half_rn(middle).bits == bits + bits % 2, "a tie in float16");
    need(__float2half_rn(std::nextafter(middle, next)).bits == bits + 1, "rounding up in float16");
  }
  need(__half2float({0x3c00}) == 1 && __half2float({0x0001}) == 0x1p-24f && __half2float({0xfbff}) == -65504,
       "float16");
  need(__float2half_rn(65520).bits == 0x7c00 && __float2half_rn(65519).bits == 0x7bff, "the end of float16");
}

void order_follows_the_seed() {
  std::vector<int> order;
  run([&] { order.push_back(int(blockIdx.x * kThreads + threadIdx.x)); }, 4);
  bool sorted = std::is_sorted(order.begin(), order.end());
  need(sorted == (std::getenv("ITRD_EMULATION_SEED") == nullptr), "order of threads");
  need(order.size() == 4 * kThreads, "every thread runs once");
}

void missing_thread_at_barrier() {
  run([] {
    if (threadIdx.x == 40) return;
    __syncthreads();
  });
}

void missing_lane_in_shuffle() {
  run([] {
    if (threadIdx.x != 7) __shfl_xor_sync(0xffffffffu, 1, 1);
    __syncthreads();
  });
}

void lanes_at_different_instructions() {
  run([] {
    if (threadIdx.x % 2)
      __shfl_xor_sync(0xffffffffu, 1, 1);
    else
      __shfl_xor_sync(0xffffffffu, 1.0f, 1);
  });
}

void copy_never_waited_for() {
  static float from[4];
  run([] {
    if (threadIdx.x == 0) itrd::copy_async(emulation::machine().shared, from, 16);
  });
}

void copy_misaligned() {
  static float from[8];
  run([] { itrd::copy_async(emulation::machine().shared, from + 1, 16); });
}

void partial_mask() {
  run([] { __shfl_xor_sync(0xffffu, 1, 1); });
}

}  // namespace

int main(int, char** argv) {
  const struct {
    const char* name;
    void (*check)();
  } checks[] = {
      {"shuffles", shuffles},
      {"barriers order shared memory", barriers_order_shared_memory},
      {"shared memory starts as NaN", shared_memory_starts_as_nan},
      {"copies arrive at their wait", copies_arrive_at_their_wait},
      {"products of tf32", [] { products<float>([](float x) { return x; }); }},
      {"products of float16", [] { products<__half>(__float2half_rn); }},
      {"products of bfloat16", [] { products<__nv_bfloat16>(__float2bfloat16_rn); }},
      {"half precision", half_precision},
      {"order follows the seed", order_follows_the_seed},
      {"missing thread at barrier", missing_thread_at_barrier},
      {"missing lane in shuffle", missing_lane_in_shuffle},
      {"lanes at different instructions", lanes_at_different_instructions},
      {"copy never waited for", copy_never_waited_for},
      {"copy misaligned", copy_misaligned},
      {"partial mask", partial_mask},
  };
  for (const auto& c : checks)
    if (argv[1] == std::string(c.name)) {
      c.check();
      std::puts("done");
      return 0;
    }
  return 2;
}
