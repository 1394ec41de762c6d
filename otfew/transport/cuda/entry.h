// How a kernel begins: one warp a problem, as many warps a block as the launch asks for.
#pragma once
#include "warp.h"

// NAME: of the kernel; ARGUMENTS: its struct, with the number of problems; BYTES: of shared memory a warp; SOLVE: for
// problem k in that memory.
#ifndef KERNEL
#define KERNEL(NAME, ARGUMENTS, BYTES, SOLVE)                                          \
  extern "C" __global__ void NAME(const ARGUMENTS problems) {                          \
    extern __shared__ __align__(16) char shared[];                                     \
    const int warp = threadIdx.x >> 5;                                                 \
    const int k = blockIdx.x * (blockDim.x >> 5) + warp;                               \
    if (k >= problems.problems) return;                                                \
    char* const memory = shared + warp * (BYTES);                                      \
    (void)memory;                                                                      \
    SOLVE;                                                                             \
  }
#endif
