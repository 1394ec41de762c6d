// Kernels of entropic transport.
#include "entry.h"
#include "sinkhorn.h"

#define ENTROPIC(NAME, GIVEN) \
  KERNEL(NAME, EntropicProblems, entropic_bytes<GIVEN>(problems), (solve_entropic<GIVEN>(problems, k, memory)))
