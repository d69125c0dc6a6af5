// The headers that a unit includes before its target pragma: their inline functions are shared by all units, and must
// not be compiled for one instruction set.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

#include "cpu/buffer.h"
#include "cpu/interface.h"
