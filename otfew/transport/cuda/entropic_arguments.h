// Arguments of the entropic kernels, one struct passed by value; entropic_arguments.py mirrors it.
#pragma once
#include "warp.h"

// Entropic transport. Pointers are to the device's memory; strides are in elements, 0 where something is broadcast.
struct EntropicProblems {
  const void* cost;
  const double* a;  // null: uniform, with the total of b, 1 if both are null
  const double* b;
  i64 cost_problem, cost_row, cost_col;
  i64 a_problem, a_step;
  i64 b_problem, b_step;
  double reg;           // in the units of the cost
  double inverse;       // 1 / reg within the range of the cost's dtype
  double reach;         // largest |cost - offset| / reg of the plain domain
  double tol;           // largest deviation from a marginal, for a total of 1
  double rho_a, rho_b;  // prices of soft marginals, infinite for hard ones
  double totals_rtol;   // infinite: nothing is validated
  double least, most;   // masses between which a plan fits the cost's dtype
  i64 plain;            // iterations in the plain domain at most; 0: its room was not given
  i64 max_iter;
  int problems, n, m, unused;
  // Null, or (problems, n) and (problems, m) where pairs at infinite costs are not to be used: the part of the rest to
  // which each node belongs, -1 for none. Each row then has a column with weight, and each column a row.
  const int *row_part, *column_part;
  void* plan;               // (problems, n, m), in the cost's dtype, for weights of total 1
  double *unit_a, *unit_b;  // (problems, n), (problems, m): weights that were divided by their total
  double *phi, *psi;        // (problems, n), (problems, m): potentials over reg
  double *mass;             // (problems,): what a and b were divided by
  double *value;            // (problems,): dual value, for that mass; of hard marginals only
  double *offset;           // (problems,): was subtracted from the costs
  double *error;            // (problems,): largest deviation from a marginal
  i64* n_iter;              // (problems,)
  signed char* status;      // (problems,)
  int* flag;                // one number: 1 << status of every problem that is not optimal, 1 << MISFIT
};

// otfew.transport.problem.Status, and what the flag tells besides.
enum Status { OPTIMAL = 0, MAX_ITER = 1, FAILED = 2, INVALID = 3, MISFIT = 5 };
