// What leaves the kernel: the plan's arcs, feasible potentials, and what they prove.
#pragma once
#include "pricing.h"
#include "weights.h"

constexpr double EPS = 1.1102230246251565e-16;  // largest relative error of one rounding
constexpr double CERTAIN = 1e-9;                // otfew.transport.certificate.CERTAIN

struct Outputs {
  int *rows, *cols;
  double *flow, *f, *g;
};

struct Measured {
  double value, gross;  // cost of the plan, and the same of costs without signs
  double least, most;   // smallest cost of an arc, largest of one with flow
  double error;         // largest deviation of the plan's sums, in mass
};

// Largest deviation of the plan's sums from the weights. `amounts`, in memory, and `sums`: what each node's arc to its
// parent carries; what children carry is added here.
template <int RS, int CS, class Given>
DEVICE double largest_miss(const Costs<Given>& costs, const Memory<RS, CS>& memory, const double* amounts,
                           const Weights<RS>& a, const Weights<CS>& b, Lanes<double>* sums) {
  typedef Sizes<RS, CS> S;
  const Lanes<double> none = 0.0;
  UNROLL
  for (int r = 0; r < RS; r++) sums[r] = sums[r] - a.w[r];
  UNROLL
  for (int c = 0; c < CS; c++) sums[RS + c] = sums[RS + c] - b.w[c] * (a.total / b.total);
  for (int x = 0; x < costs.n; x++) {
    const Lanes<int> above = load_one(memory.parent, x);
    const Lanes<double> amount = load_one(amounts, x);
    UNROLL
    for (int c = 0; c < CS; c++)
      sums[RS + c] = sums[RS + c] + choose(lane_index() + (S::ROWS + 32 * c) == above, amount, none);
  }
  for (int x = S::ROWS; x < S::ROWS + costs.m; x++) {
    const Lanes<int> above = load_one(memory.parent, x);
    const Lanes<double> amount = load_one(amounts, x);
    UNROLL
    for (int r = 0; r < RS; r++) sums[r] = sums[r] + choose(lane_index() + 32 * r == above, amount, none);
  }
  Lanes<double> worst = 0.0;
  UNROLL
  for (int k = 0; k < S::SLOTS; k++) worst = larger(worst, magnitude(sums[k]));
  return warp_largest(worst);
}

// Arcs in the order of the nodes that hang on them, without the root; `total`: units of all mass.
template <int RS, int CS, class Given>
DEVICE Measured write_arcs(const Costs<Given>& costs, const Memory<RS, CS>& memory, int root, i64 total,
                           const Weights<RS>& a, const Weights<CS>& b, const Outputs& out) {
  typedef Sizes<RS, CS> S;
  Lanes<double> value = 0.0, gross = 0.0, least = INFINITE, most = -INFINITE;
  double* amounts = reinterpret_cast<double*>(memory.scratch);
  const double unit = a.total / double(total);
  Lanes<double> sums[S::SLOTS];
  UNROLL
  for (int k = 0; k < S::SLOTS; k++) {
    const Lanes<int> x = lane_index() + 32 * k;
    const Lanes<int> above = load(memory.parent, x);
    const Lanes<bool> used = above >= 0;
    const Lanes<int> row = choose(used, k < RS ? x : above, Lanes<int>(0));
    const Lanes<int> column = choose(used, (k < RS ? above : x) - S::ROWS, Lanes<int>(0));
    const Lanes<double> amount = convert<double>(load(memory.flow, x)) * unit;
    const Lanes<int> at = k < RS ? x : x - (S::ROWS - costs.n);
    const Lanes<int> place = choose(at < root, at, at - 1);
    const Lanes<bool> is = (k < RS ? x < costs.n : x < S::ROWS + costs.m) && x != root;
    store(out.rows, place, row, is);
    store(out.cols, place, column, is);
    store(out.flow, place, choose(used, amount, Lanes<double>(0.0)), is);
    const Lanes<double> cost =
        convert<double>(load(costs.at, convert<i64>(row) * costs.row + convert<i64>(column) * costs.col));
    value = value + choose(used, amount * cost, Lanes<double>(0.0));
    gross = gross + choose(used, amount * magnitude(cost), Lanes<double>(0.0));
    least = choose(used, smaller(least, cost), least);
    most = choose(used && amount > 0.0, larger(most, cost), most);
    sums[k] = choose(used, amount, Lanes<double>(0.0));
    store(amounts, x, sums[k]);
  }
  sync_lanes();
  const double error = largest_miss<RS, CS>(costs, memory, amounts, a, b, sums);
  return {warp_sum(value), warp_sum(gross), warp_smallest(least), warp_largest(most), error};
}

// Whether no cost between nodes with mass is below `price`.
template <int RS, int CS, class Given>
DEVICE bool none_below(const Costs<Given>& costs, const u32* rows, const Lanes<bool>* held, double price) {
  Lanes<bool> below = false;
  UNROLL
  for (int c = 0; c < CS; c++) {
    const Lanes<i64> column = costs.column(lane_index() + 32 * c);
    for (int i = 0; i < costs.n; i++)
      if (bit_at<RS>(rows, i))
        below = below || (held[c] && convert<double>(load(costs.at, column + i * costs.row)) < price);
  }
  return !ballot(below);
}

// Potentials of nodes without mass: of rows by the columns with mass, then of columns by all rows, so that where only
// one side has such nodes the potentials are the one-sided derivatives of the value. Through memory: f in u.
template <int RS, int CS, class Given>
DEVICE void extend(const Costs<Given>& costs, const Memory<RS, CS>& memory, const u32* rows, const u32* columns,
                   Lanes<double>* f, Lanes<double>* g) {
  double* shared = reinterpret_cast<double*>(memory.scratch);
  sync_lanes();
  UNROLL
  for (int c = 0; c < CS; c++) store(shared, lane_index() + 32 * c, g[c]);
  sync_lanes();
  UNROLL
  for (int r = 0; r < RS; r++) {
    const Lanes<int> i = lane_index() + 32 * r;
    const Lanes<i64> row = convert<i64>(smaller(i, Lanes<int>(costs.n - 1))) * costs.row;
    Lanes<double> least = INFINITE;
    for (int j = 0; j < costs.m; j++)
      if (bit_at<CS>(columns, j))
        least = smaller(least, convert<double>(load(costs.at, row + j * costs.col)) - load_one(shared, j));
    f[r] = choose(lane_in(rows[r]), f[r], least);
    store(memory.u, i, f[r]);
  }
  sync_lanes();
  UNROLL
  for (int c = 0; c < CS; c++) {
    const Lanes<i64> column = costs.column(lane_index() + 32 * c);
    Lanes<double> least = INFINITE;
    for (int i = 0; i < costs.n; i++)
      least = smaller(least, convert<double>(load(costs.at, column + i * costs.row)) - load_one(memory.u, i));
    g[c] = choose(lane_in(columns[c]), g[c], least);
  }
}
