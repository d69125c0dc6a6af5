// The kernels for any processor: 16-byte vectors, which SSE2 and NEON have and a compiler can always take apart.
#include "cpu/isa/prelude.h"
#define ITRD_ISA portable
#define VECTOR_BYTES 16
#define TILE_ROWS 4
#define TILE_VECTORS 2
#include "cpu/isa/table.h"
