// Runs CUDA kernels, compiled as host C++, on the CPU: one block at a time, its threads as fibers.
//
// It shows: out-of-bounds accesses (with AddressSanitizer), missing barriers and unordered accesses of different blocks
// (with ThreadSanitizer), reads of shared memory that nobody wrote (it starts as NaN), reads of asynchronous copies
// that nobody waited for (NaN until then), barriers and warp instructions that part of the threads miss, and results
// that depend on the order of threads or blocks (ITRD_EMULATION_SEED shuffles both).
//
// It cannot show: the hardware's memory model and caches, races inside a warp, the matrix units' own rounding (sums
// here are in float32, one after the other), registers, occupancy, speed, or anything about ptxas.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iterator>
#include <memory>
#include <random>
#include <vector>

#include "fiber.h"

namespace emulation {

constexpr int kLanes = 32;
#if defined(__SANITIZE_ADDRESS__) || !defined(__OPTIMIZE__)
constexpr size_t kStackBytes = 256 << 10;
#else
constexpr size_t kStackBytes = 32 << 10;
#endif
#if defined(__SANITIZE_THREAD__)
// Threads of different blocks must not share stacks, whose reuse would look like a race.
constexpr bool kFreshStacks = true;
#else
constexpr bool kFreshStacks = false;
#endif

struct Index {
  unsigned x = 0, y = 0, z = 0;
};

enum class State { ready, at_barrier, in_warp, done };

// 16 bytes on their way to shared memory.
struct Copy {
  void* to;
  const void* from;
  int bytes, group;
};

struct Thread {
  Context context;
  Watched watched{};
  State state = State::ready;
  int index = 0;
  unsigned barriers = 0;
  int group = 0;  // asynchronous copies are committed in groups
  Copy copies[64];
  int copy_count = 0;
};

// Lanes on their way into the same warp instruction.
struct Warp {
  int arrived = 0;
  const void* instruction = nullptr;
  void* arguments[kLanes] = {};
  unsigned generation = 0;
};

struct Machine {
  Index block_index, grid, block;
  Thread* current = nullptr;
  Context scheduler;
  Watched scheduler_watched{};
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  unsigned char* shared = nullptr;
  const std::function<void()>* kernel = nullptr;
  unsigned blocks_run = 0, launches = 0;
  // Addresses that stand for events. A barrier takes turns between two, since threads may reach the next one before
  // others have left this one; every block has its own, since barriers do not order blocks.
  char start = 0, end = 0, fence = 0;
  char events[1 << 12][2][1 + 64];

  char* event(int warp, unsigned generation) { return &events[blocks_run % (1 << 12)][generation % 2][1 + warp]; }
};

inline Machine& machine() {
  static Machine m;
  return m;
}

[[noreturn]] inline void fail(const char* what) {
  Machine& m = machine();
  std::fprintf(stderr, "emulation: %s, block (%u, %u, %u)", what, m.block_index.x, m.block_index.y, m.block_index.z);
  if (m.current) std::fprintf(stderr, ", thread %d", m.current->index);
  std::fprintf(stderr, "\n");
  std::abort();
}

EMULATION_UNWATCHED inline void yield(State state) {
  Machine& m = machine();
  Thread* self = m.current;
  self->state = state;
  watch_switch(m.scheduler_watched);
  self->context.switch_to(m.scheduler);
}

EMULATION_UNWATCHED inline void block_barrier() {
  Machine& m = machine();
  Thread* self = m.current;
  char* event = m.event(-1, self->barriers++);
  release(event);
  yield(State::at_barrier);
  acquire(event);
}

// A warp instruction: the last lane to arrive carries it out for all, given every lane's arguments.
template <class Arguments>
EMULATION_UNWATCHED void warp_instruction(Arguments& arguments, void (*carry_out)(Arguments* const*)) {
  Machine& m = machine();
  int index = m.current->index;
  Warp& warp = m.warps[index / kLanes];
  char *arrive = m.event(index / kLanes, 0), *leave = m.event(index / kLanes, 1);
  if (warp.arrived == 0) warp.instruction = reinterpret_cast<const void*>(carry_out);
  if (warp.instruction != reinterpret_cast<const void*>(carry_out))
    fail("the lanes of a warp disagree on an instruction");
  warp.arguments[index % kLanes] = &arguments;
  release(arrive);
  if (++warp.arrived < kLanes) {
    yield(State::in_warp);
    acquire(leave);
    return;
  }
  warp.arrived = 0;
  acquire(arrive);
  carry_out(reinterpret_cast<Arguments* const*>(warp.arguments));
  release(leave);
  for (int lane = 0; lane < kLanes; ++lane) m.threads[index / kLanes * kLanes + lane].state = State::ready;
}

// Asynchronous copies happen at the wait that covers them; until then their destination is NaN.
EMULATION_UNWATCHED inline void remember(const Copy& copy) {
  Thread* self = machine().current;
  if (self->copy_count == int(std::size(self->copies))) fail("too many asynchronous copies under way");
  self->copies[self->copy_count] = copy;
  self->copies[self->copy_count++].group = self->group;
}
// The oldest copy that a wait covers; false if there is none left.
EMULATION_UNWATCHED inline bool next_covered(int pending, Copy& copy) {
  Thread* self = machine().current;
  for (int i = 0; i < self->copy_count; ++i) {
    if (self->copies[i].group >= self->group - pending) continue;
    copy = self->copies[i];
    self->copies[i] = self->copies[--self->copy_count];
    return true;
  }
  return false;
}
inline void copy_issue(void* to, const void* from, int bytes) {
  std::memset(to, 0xff, 16);
  remember({to, from, bytes, 0});
}
EMULATION_UNWATCHED inline void copy_commit() { ++machine().current->group; }
inline void copy_wait(int pending) {
  for (Copy copy; next_covered(pending, copy);) {
    std::memset(copy.to, 0, 16);
    std::memcpy(copy.to, copy.from, copy.bytes);
  }
}
EMULATION_UNWATCHED inline bool copies_under_way() { return machine().current->copy_count > 0; }

inline void run_thread() {
  Machine& m = machine();
  acquire(&m.start);
  (*m.kernel)();
  if (copies_under_way()) fail("a thread ends with asynchronous copies under way");
  release(&m.end);
  yield(State::done);
  std::abort();
}

// Runs the threads of one block until all are done.
EMULATION_UNWATCHED inline void run_block(std::vector<int>& order, std::mt19937* random) {
  Machine& m = machine();
  for (;;) {
    if (random) std::shuffle(order.begin(), order.end(), *random);
    bool progress = false;
    for (int i : order) {
      if (m.threads[i].state != State::ready) continue;
      progress = true;
      m.current = &m.threads[i];
      watch_switch(m.current->watched);
      m.scheduler.switch_to(m.current->context);
    }
    int waiting = 0, done = 0;
    for (const Thread& thread : m.threads) {
      waiting += thread.state == State::at_barrier;
      done += thread.state == State::done;
    }
    if (done == int(m.threads.size())) return;
    m.current = nullptr;
    if (waiting == int(m.threads.size())) {
      for (Thread& thread : m.threads) thread.state = State::ready;
    } else if (!progress) {
      fail(done ? "some threads have ended while others wait at a barrier or warp instruction"
                : "threads wait at different barriers or warp instructions");
    }
  }
}

// One launch: all blocks of the grid, one after the other.
inline void run(Index grid, unsigned block, size_t shared_bytes, const std::function<void()>& kernel) {
  static char* stacks = nullptr;
  static size_t stack_count = 0;
  Machine& m = machine();
  if (block % kLanes || block == 0 || block > 1024) fail("the block is no multiple of 32 threads, or too large");
  Unwatched scheduler;
  ++m.launches;
  m.grid = grid;
  m.block = {block, 1, 1};
  m.kernel = &kernel;
  m.scheduler_watched = watch_current();
  release(&m.start);
  static const char* seed = std::getenv("ITRD_EMULATION_SEED");
  static std::mt19937 random(seed ? std::atoi(seed) : 0);
  std::vector<int> order(block);
  for (unsigned i = 0; i < block; ++i) order[i] = int(i);
  std::vector<unsigned> blocks(size_t(grid.x) * grid.y * grid.z);
  for (size_t b = 0; b < blocks.size(); ++b) blocks[b] = unsigned(b);
  if (seed) std::shuffle(blocks.begin(), blocks.end(), random);

  std::vector<Watched> finished;
  for (unsigned b : blocks) {
    m.block_index = {b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y};
    ++m.blocks_run;
    if (kFreshStacks || stack_count < block) {
      std::free(stacks);
      stacks = static_cast<char*>(std::malloc(kStackBytes * block));
      stack_count = block;
    }
    // Exactly as large as asked for, so that AddressSanitizer sees its end, and NaN in every type.
    std::unique_ptr<unsigned char[]> shared(new unsigned char[shared_bytes]);
    std::memset(shared.get(), 0xff, shared_bytes);
    m.shared = shared.get();
    m.threads.assign(block, Thread());
    m.warps.assign(block / kLanes, Warp());
    for (unsigned i = 0; i < block; ++i) {
      m.threads[i].index = int(i);
      m.threads[i].watched = watch_new();
      m.threads[i].context.start(stacks + kStackBytes * i, kStackBytes, run_thread);
    }
    run_block(order, seed ? &random : nullptr);
    // ThreadSanitizer drops a report whose other side is a deleted fiber, so they live as long as the launch.
    for (Thread& thread : m.threads) finished.push_back(thread.watched);
    m.current = nullptr;
  }
  for (Watched fiber : finished) watch_delete(fiber);
  acquire(&m.end);
}

}  // namespace emulation
