// Arguments of the kernels, one struct each, passed by value; otfew/transport/cuda/arguments.py mirrors them.
#pragma once

constexpr int MOST_DIMS = 6;

// Exact transport. Pointers are to the device's memory; strides are in elements.
struct ExactProblems {
  const void* cost;
  const double* a;  // null: uniform, with the total of b, 1 if both are null
  const double* b;
  int problems, n, m, dims;
  // Problem number k, unravelled over size[0..dims-1], finds its cost and weights by these strides; 0 where broadcast.
  i64 size[MOST_DIMS], cost_stride[MOST_DIMS], a_stride[MOST_DIMS], b_stride[MOST_DIMS];
  i64 cost_row, cost_col, a_step, b_step;
  double tol, totals_rtol;  // totals_rtol infinite: totals are not compared
  i64 max_iter;
  int *rows, *cols;                   // (problems, n + m - 1)
  double *flow, *f, *g;               // (problems, n + m - 1), (problems, n), (problems, m)
  double *value, *gap, *error;        // (problems,)
  int* status;                        // (problems,)
  i64* n_iter;                        // (problems,)
  int* flag;                          // one number: 1 << status of every problem that is not optimal
};

// The dense plan times a number for each problem: the gradient in the costs.
struct PlanTimes {
  const int *rows, *cols;   // (problems, arcs)
  const double* flow;       // (problems, arcs)
  const double* grad;       // null: ones
  i64 grad_stride;          // 0: one number for all
  void* out;                // (problems, n, m)
  int problems, n, m, arcs;
};

// Where the data of problem k begin, by its number unravelled over the sizes.
DEVICE i64 offset_of(int k, int dims, const i64* size, const i64* stride) {
  i64 offset = 0;
  u32 rest = (u32)k;
  UNROLL
  for (int d = MOST_DIMS - 1; d >= 0; d--) {
    if (d >= dims) continue;
    const u32 length = (u32)size[d];
    offset += (i64)(rest % length) * stride[d];
    rest /= length;
  }
  return offset;
}
