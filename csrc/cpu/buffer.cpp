// Memory that is kept from one call to the next.
#include "cpu/buffer.h"

#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace itrd {
namespace {

constexpr std::size_t kCacheLine = 64, kHugePage = std::size_t(2) << 20;
constexpr std::size_t kLargestKept = std::size_t(32) << 20, kAllKept = std::size_t(96) << 20;

std::size_t unit(std::size_t bytes) { return bytes < kSmallestOnPages ? kCacheLine : kHugePage; }

std::size_t rounded(std::size_t bytes) { return (bytes + unit(bytes) - (bytes > 0)) / unit(bytes) * unit(bytes); }

void free_memory(void* data) {
#ifdef _WIN32
  _aligned_free(data);
#else
  std::free(data);
#endif
}

void* new_memory(std::size_t bytes) {
#ifdef _WIN32
  void* const data = _aligned_malloc(rounded(bytes), unit(bytes));
#else
  void* const data = std::aligned_alloc(unit(bytes), rounded(bytes));
#endif
  if (!data) throw std::bad_alloc();
#ifdef __linux__
  if (unit(bytes) == kHugePage) madvise(data, rounded(bytes), MADV_HUGEPAGE);
#endif
  return data;
}

// Where AddressSanitizer watches: of a block only the first `bytes` may be touched, none of what is kept, and what has
// been taken holds NaN.
void allow([[maybe_unused]] void* data, [[maybe_unused]] std::size_t size, [[maybe_unused]] std::size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
  __asan_poison_memory_region(data, size);
  __asan_unpoison_memory_region(data, bytes);
  std::memset(data, 0xff, bytes);
#endif
}

// What a thread has given back, oldest first.
struct Kept {
  struct Block {
    void* data;
    std::size_t bytes;
  };
  std::vector<Block> blocks;
  std::size_t total = 0;

  ~Kept();
  void* find(std::size_t size) {
    for (std::size_t i = blocks.size(); i-- > 0;)
      if (blocks[i].bytes == size) return remove(i);
    return nullptr;
  }
  void* remove(std::size_t i) {
    void* const data = blocks[i].data;
    total -= blocks[i].bytes;
    blocks.erase(blocks.begin() + std::ptrdiff_t(i));
    return data;
  }
};

// Tensors can outlive what a thread keeps.
thread_local bool thread_is_ending = false;

Kept::~Kept() {
  thread_is_ending = true;
  for (const Block& block : blocks) free_memory(block.data);
}

Kept& kept() {
  static thread_local Kept blocks;
  return blocks;
}

}  // namespace

void* take_memory(std::size_t bytes) {
  const std::size_t size = rounded(bytes);
  void* data = thread_is_ending ? nullptr : kept().find(size);
  if (!data) data = new_memory(bytes);
  allow(data, size, bytes);
  return data;
}

void give_back_memory(void* data, std::size_t bytes) {
  const std::size_t size = rounded(bytes);
  if (size >= kLargestKept || thread_is_ending) return free_memory(data);
  allow(data, size, 0);
  Kept& have = kept();
  while (have.total + size > kAllKept) free_memory(have.remove(0));
  have.blocks.push_back({data, size});
  have.total += size;
}

}  // namespace itrd
