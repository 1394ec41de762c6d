// Kernels of exact transport.
#include "entry.h"
#include "network_simplex.h"
#include "plan.h"

#define EXACT(NAME, RS, CS, GIVEN) \
  KERNEL(NAME, ExactProblems, (Memory<RS, CS>::bytes(problems.n)), (solve_exact<RS, CS, GIVEN>(problems, k, memory)))
#define PLAN(NAME, GIVEN) KERNEL(NAME, PlanTimes, 0, (lay_out<GIVEN>(problems, k)))
