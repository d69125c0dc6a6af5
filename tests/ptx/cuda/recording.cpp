// What the tests need to know of a launch beside its parameters: where the memory lies that these point to.
// Allocators are no part of torch's stable ABI, to which the operators keep.
#undef TORCH_TARGET_VERSION
#include <c10/core/CPUAllocator.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>

#include "instructions.h"

namespace handed_over {

Launcher launcher = nullptr;

namespace {

// Gives out memory as a GPU's allocator does, at multiples of 256 bytes, full of NaN, and remembers each piece of it.
struct Recording final : c10::Allocator {
  static constexpr size_t kAlign = 256;
  c10::Allocator* inner = c10::GetCPUAllocator();
  std::mutex mutex;
  std::map<uintptr_t, size_t> pieces;

  c10::DataPtr allocate(size_t bytes) override {
    c10::DataPtr memory = inner->allocate(bytes + kAlign);
    auto at = (reinterpret_cast<uintptr_t>(memory.get()) + kAlign - 1) / kAlign * kAlign;
    std::memset(reinterpret_cast<void*>(at), 0xff, bytes);
    {
      std::lock_guard lock(mutex);
      // Pieces that were there before have been freed.
      auto first = pieces.lower_bound(at);
      if (first != pieces.begin() && std::prev(first)->first + std::prev(first)->second > at) --first;
      pieces.erase(first, pieces.lower_bound(at + bytes));
      if (bytes) pieces[at] = bytes;
    }
    c10::DeleterFnPtr free = memory.get_deleter();
    c10::Device device = memory.device();
    return {reinterpret_cast<void*>(at), memory.release_context(), free, device};
  }
  // The pointer is not what the deleter wants.
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }
};

Recording& recording() {
  static Recording allocator;
  return allocator;
}

}  // namespace

extern "C" {

__attribute__((visibility("default"))) void itrd_set_launcher(Launcher take) { launcher = take; }

// While recording, torch takes memory for CPU tensors from here.
__attribute__((visibility("default"))) void itrd_record(bool on) {
  c10::SetCPUAllocator(on ? &recording() : recording().inner);
}

// The piece in which an address lies: its first byte and its size, or 0 if there is none.
__attribute__((visibility("default"))) size_t itrd_piece(uintptr_t address, uintptr_t* first) {
  std::lock_guard lock(recording().mutex);
  auto next = recording().pieces.upper_bound(address);
  if (next == recording().pieces.begin()) return 0;
  auto [at, bytes] = *std::prev(next);
  *first = at;
  return address < at + bytes ? bytes : 0;
}

}  // extern "C"

}  // namespace handed_over
