// A fiber: a function with a stack of its own that the scheduler of emulation.h switches to and that switches back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#if !defined(__x86_64__) || defined(_WIN32)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

namespace emulation {

#if defined(__x86_64__) && !defined(_WIN32)

// Saves the registers that a call must keep, and the stack, in *from; continues where `to` was saved.
extern "C" void emulation_switch(void** from, void* to);
__asm__(R"(
.text
.weak emulation_switch
.type emulation_switch, @function
emulation_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
.size emulation_switch, .-emulation_switch
)");

struct Context {
  void* saved = nullptr;

  void start(char* stack, size_t bytes, void (*function)()) {
    auto** top = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(stack + bytes) & ~uintptr_t(15));
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(function);
    saved = top - 6;
  }
  void switch_to(Context& other) { emulation_switch(&saved, other.saved); }
};

#else

// Slower: a system call per switch.
struct Context {
  ucontext_t saved;

  void start(char* stack, size_t bytes, void (*function)()) {
    getcontext(&saved);
    saved.uc_stack.ss_sp = stack;
    saved.uc_stack.ss_size = bytes;
    saved.uc_link = nullptr;
    makecontext(&saved, function, 0);
  }
  void switch_to(Context& other) { swapcontext(&saved, &other.saved); }
};

#endif

// What ThreadSanitizer has to know: which fiber runs, and which events order the memory accesses of different fibers.
#if defined(__SANITIZE_THREAD__)
using Watched = void*;
inline Watched watch_new() { return __tsan_create_fiber(0); }
inline Watched watch_current() { return __tsan_get_current_fiber(); }
inline void watch_switch(Watched fiber) { __tsan_switch_to_fiber(fiber, __tsan_switch_to_fiber_no_sync); }
inline void watch_delete(Watched fiber) { __tsan_destroy_fiber(fiber); }
inline void release(void* event) { __tsan_release(event); }
inline void acquire(void* event) { __tsan_acquire(event); }
extern "C" {
void AnnotateIgnoreReadsBegin(const char*, int);
void AnnotateIgnoreReadsEnd(const char*, int);
void AnnotateIgnoreWritesBegin(const char*, int);
void AnnotateIgnoreWritesEnd(const char*, int);
}
// The scheduler's own accesses are not under test.
struct Unwatched {
  Unwatched() { AnnotateIgnoreReadsBegin("", 0), AnnotateIgnoreWritesBegin("", 0); }
  ~Unwatched() { AnnotateIgnoreWritesEnd("", 0), AnnotateIgnoreReadsEnd("", 0); }
};
#define EMULATION_UNWATCHED __attribute__((noinline, no_sanitize_thread))
#else
using Watched = char;
inline Watched watch_new() { return 0; }
inline Watched watch_current() { return 0; }
inline void watch_switch(Watched) {}
inline void watch_delete(Watched) {}
inline void release(void*) {}
inline void acquire(void*) {}
struct Unwatched {
  Unwatched() {}
};
#define EMULATION_UNWATCHED __attribute__((noinline))
#endif

}  // namespace emulation
