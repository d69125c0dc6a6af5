// The threads of the CPU kernels where no PyTorch gives them any.
#pragma once

#include <thread>
#include <vector>

#include "cpu/interface.h"

namespace itrd {

inline thread_local int most_threads = 2;  // of the calls from this thread

void run_parallel(int threads, void (*body)(void* context, int thread), void* context) {
  std::vector<std::thread> others;
  for (int thread = 1; thread < threads; ++thread) others.emplace_back(body, context, thread);
  body(context, 0);
  for (std::thread& other : others) other.join();
}

int max_threads() { return most_threads; }

}  // namespace itrd
