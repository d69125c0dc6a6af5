// The kernels for any processor: 16-byte vectors, which SSE2 and NEON have and a compiler can always take apart.
#include "cpu/isa/prelude.h"
#define ITRD_ISA portable
#define ITRD_VECTOR_BYTES 16
#define ITRD_REGISTER_ROWS 4
#define ITRD_REGISTER_VECTORS 2
#include "cpu/isa/table.h"
