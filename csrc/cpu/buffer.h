// Memory that one call works in, kept for the next one: fresh pages cost more than the arithmetic done in them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace itrd {

// From here on buffers lie on pages of their own, which come at a price.
constexpr std::size_t kSmallestOnPages = std::size_t(128) << 10;

// Uninitialised memory that starts on a cache line. The calling thread keeps what it gives back, buffers below 32 MiB
// and 96 MiB of them in all.
void* take_memory(std::size_t bytes);
void give_back_memory(void* data, std::size_t bytes);

struct GiveBack {
  std::size_t bytes = 0;
  void operator()(void* data) const { give_back_memory(data, bytes); }
};

template <class C>
using Buffer = std::unique_ptr<C[], GiveBack>;

template <class C>
Buffer<C> allocate(int64_t count) {
  const std::size_t bytes = count * sizeof(C);
  return Buffer<C>(static_cast<C*>(take_memory(bytes)), GiveBack{bytes});
}

}  // namespace itrd
