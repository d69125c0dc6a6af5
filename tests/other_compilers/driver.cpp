// The CPU kernels without PyTorch, for compilers and processors that it does not come with here: reads a problem from
// the standard input, writes both losses and the gradients of their sum.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "../std_threads.h"

namespace {

void read(void* to, std::size_t bytes) {
  if (std::fread(to, 1, bytes, stdin) != bytes) std::exit(1);
}

void write(const void* from, std::size_t bytes) { std::fwrite(from, 1, bytes, stdout); }

}  // namespace

int main() {
  using namespace itrd;
  struct {
    int64_t dtype, item_size, n, d;
    double alpha;
  } header;
  read(&header, sizeof header);
  const auto dtype = Dtype(header.dtype);
  const int64_t n = header.n, d = header.d;
  const std::size_t wide = dtype == Dtype::float64 ? 8 : 4;
  std::vector<char> memory[6];
  auto matrix = [&, next = 0](std::size_t item_size) mutable {
    std::vector<char>& own = memory[next++];
    own.resize(n * d * item_size);
    return Matrix{own.data(), n, d, d};
  };
  const Matrix s = matrix(header.item_size), t = matrix(header.item_size), dgram_s = matrix(wide),
               dgram_t = matrix(wide), grad_s = matrix(header.item_size), grad_t = matrix(header.item_size);
  for (const Matrix& z : {s, t}) read(z.data, n * d * header.item_size);

  const Kernels& kernels = portable::kernels();
  std::vector<double> moments(8 * d);
  const double losses[2] = {kernels.correlation_forward(dtype, s, t, header.alpha, moments.data()),
                            kernels.gram_forward(dtype, {s, t, dgram_s, dgram_t, false})};
  BackwardProblem problem;
  problem.e = s;
  problem.t = t;
  problem.moments = moments.data();
  problem.g_correlation = problem.g_mutual_information = 1;
  problem.grad_e = grad_s;
  problem.grad_t = grad_t;
  problem.dgram_e = dgram_s;
  problem.dgram_t = dgram_t;
  kernels.backward(dtype, problem);
  write(losses, sizeof losses);
  for (const Matrix& grad : {grad_s, grad_t}) write(grad.data, n * d * header.item_size);
}
