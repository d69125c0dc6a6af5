// In place of the host build's header of this name: kernels are not run by the host, their launches are handed over.
#pragma once

#include <dlfcn.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <tuple>
#include <utility>

// The host build has a launch of its own.
#define launch launch_on_host
#include "../../cuda_on_host/instructions.h"
#undef launch

namespace handed_over {

// Called for every launch, with the bytes of each of the kernel's parameters.
using Launcher = void (*)(const char* kernel, unsigned x, unsigned y, unsigned z, int block, size_t shared,
                          const void* const* parameters, const size_t* sizes, int count);
extern Launcher launcher;

}  // namespace handed_over

namespace itrd {

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, int block, size_t shared, cudaStream_t,
            const Arguments&... arguments) {
  // Host and device compiler give a kernel the same mangled name.
  Dl_info symbol;
  if (!dladdr(reinterpret_cast<void*>(kernel), &symbol) || !symbol.dli_sname) {
    std::fprintf(stderr, "a kernel without an exported name was launched\n");
    std::abort();
  }
  const std::tuple<std::decay_t<Parameters>...> values(arguments...);
  const size_t sizes[] = {sizeof(Parameters)...};
  std::apply(
      [&](const auto&... value) {
        const void* parameters[] = {&value...};
        handed_over::launcher(symbol.dli_sname, grid.x, grid.y, grid.z, block, shared, parameters, sizes,
                              int(sizeof...(Parameters)));
      },
      values);
}

}  // namespace itrd
