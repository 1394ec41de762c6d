// Exact transport, one warp a problem: a primal network simplex on a bipartite graph.
#pragma once
#include "arguments.h"
#include "certificate.h"
#include "entry.h"
#include "pivot.h"
#include "start.h"
#include "tree.h"

enum Status { OPTIMAL = 0, MAX_ITER = 1, FAILED = 2, INVALID = 3, UNSURE = 4 };

// Pivots after which float64 potentials are taken from the tree again.
constexpr int REFRESH = 256;

DEVICE void write_numbers(const ExactProblems& problems, int k, double value, double gap, double error, int status,
                          i64 pivots) {
  const Lanes<bool> one = lane_index() == 0;
  store(problems.value, Lanes<int>(k), Lanes<double>(value), one);
  store(problems.gap, Lanes<int>(k), Lanes<double>(gap), one);
  store(problems.error, Lanes<int>(k), Lanes<double>(error), one);
  store(problems.status, Lanes<int>(k), Lanes<int>(status), one);
  store(problems.n_iter, Lanes<int>(k), Lanes<i64>(pivots), one);
  if (status != OPTIMAL) raise_flag(problems.flag, 1 << status);
}

template <int RS, int CS, class Given>
struct Exact {
  typedef Sizes<RS, CS> S;
  const Costs<Given> costs;
  const Memory<RS, CS> memory;
  const Side side_a, side_b;
  const double total_a, total_b;
  const double tol;
  const i64 max_iter;
  u32 rows[RS], columns[CS];  // bits of the nodes with mass
  Lanes<bool> held[CS];       // the same of columns, by lane
  Reduction reduction;
  i64 total;  // units of all mass
  int root;
  i64 pivots;
  int status;
  Lanes<double> above[CS];  // largest row potential less reduced cost of each column

  DEVICE Exact(const Costs<Given>& costs, char* memory, const Side& side_a, const Side& side_b, double total_a,
               double total_b, double tol, i64 max_iter)
      : costs(costs), memory(memory), side_a(side_a), side_b(side_b), total_a(total_a), total_b(total_b), tol(tol),
        max_iter(max_iter), pivots(0), status(OPTIMAL) {}

  // Returns whether the costs are finite.
  DEVICE bool prepare(const Weights<RS>& a, const Weights<CS>& b) {
    Lanes<i64> units[S::SLOTS];
    bool uniform;
    total = total_units<RS, CS>(a, b, uniform);
    units_of<RS>(a, total, uniform, units);
    units_of<CS>(b, total, uniform, units + RS);
    UNROLL
    for (int r = 0; r < RS; r++) rows[r] = ballot(units[r] > i64(0));
    UNROLL
    for (int c = 0; c < CS; c++) {
      held[c] = units[RS + c] > i64(0);
      columns[c] = ballot(held[c]);
    }
    reduction = reduce_costs<RS, CS>(costs, memory, rows, columns, held);
    if (!reduction.finite) return false;
    Start<RS, CS> start(memory, costs.n);
    root = start.run(units);
    return true;
  }

  // Whole-number potentials from the tree, times 32: rows' in memory, rows without mass out of the way.
  DEVICE void whole_potentials(Lanes<int>* v) {
    const int* whole = memory.cost;
    const auto arc = [whole](Lanes<int> row, Lanes<int> column) {
      return (load(whole, row * S::STRIDE + column) >> 5) * -1;
    };
    Lanes<int> p[S::SLOTS];
    tree_potentials<int>(memory, root, arc, p);
    UNROLL
    for (int r = 0; r < RS; r++)
      store(memory.tag, lane_index() + 32 * r,
            choose(lane_in(rows[r]), p[r] * 32 + lane_index(), Lanes<int>(CLOSED)));
    UNROLL
    for (int c = 0; c < CS; c++) v[c] = p[RS + c] * 32;
    sync_lanes();
  }

  // Potentials in float64 from the tree: rows' in memory, rows without mass out of the way.
  DEVICE void exact_potentials() {
    const auto arc = [this](Lanes<int> row, Lanes<int> column) {
      // Not the column's own lane as a rule: minima are read as they were stored.
      const Lanes<i64> at = convert<i64>(row) * costs.row + convert<i64>(column) * costs.col;
      return convert<double>(load(costs.at, at)) - load(memory.mean, row) - load(memory.low, column);
    };
    Lanes<double> p[S::SLOTS];
    tree_potentials<double>(memory, root, arc, p);
    UNROLL
    for (int r = 0; r < RS; r++) {
      const Lanes<bool> in = lane_in(rows[r]);
      store(memory.u, lane_index() + 32 * r, choose(in, p[r], Lanes<double>(-INFINITE)));
    }
    UNROLL
    for (int c = 0; c < CS; c++) store(memory.v, lane_index() + 32 * c, p[RS + c]);
    sync_lanes();
  }

  // The moved subtree's potentials follow its new arc: rows' by `shift`, columns' against it.
  DEVICE void follow(const Pivot<RS, CS>& pivot, int excess, Lanes<int>* v) {
    const int shift = pivot.row_side ? -excess : excess;
    UNROLL
    for (int r = 0; r < RS; r++) {
      const Lanes<int> i = lane_index() + 32 * r;
      store(memory.tag, i, load(memory.tag, i) + shift, pivot.moved[r]);
    }
    UNROLL
    for (int c = 0; c < CS; c++) v[c] = choose(pivot.moved[RS + c], v[c] - shift, v[c]);
    sync_lanes();
  }

  DEVICE void follow_exactly(const Pivot<RS, CS>& pivot, double excess) {
    const double shift = pivot.row_side ? -excess : excess;
    UNROLL
    for (int r = 0; r < RS; r++) {
      const Lanes<int> i = lane_index() + 32 * r;
      store(memory.u, i, load(memory.u, i) + shift, pivot.moved[r]);
    }
    UNROLL
    for (int c = 0; c < CS; c++) {
      const Lanes<int> j = lane_index() + 32 * c;
      store(memory.v, j, load(memory.v, j) - shift, pivot.moved[RS + c]);
    }
    sync_lanes();
  }

  // Pivot in whole numbers while there is an excess of one that `tol` does not allow; then float64 decides.
  DEVICE void solve() {
    const double allowed = reduction.spread * larger(1e-13 + 4e-16 * costs.m, tol);
    const int least = 1 + (int)smaller(tol * double(reduction.whole), 1e9);
    WholePricing<RS, CS> whole(memory, costs.n, least, held);
    whole_potentials(whole.v);
    bool exact = false, stale = true;
    int steps = 0;
    while (true) {
      Entering entering;
      if (!exact) exact = pivots >= max_iter || !whole.price(entering);
      if (exact) {
        if (stale) {
          exact_potentials();
          stale = false;
          steps = 0;
        }
        if (!price_exactly<RS, CS>(costs, memory, reduction.spread, held, allowed, above, entering)) {
          if (steps < REFRESH) return;
          stale = true;
          continue;
        }
        if (pivots >= max_iter) {
          status = MAX_ITER;
          return;
        }
      }
      Pivot<RS, CS> pivot(memory, entering.row, S::ROWS + entering.column);
      pivot.run();
      pivots++;
      steps++;
      if (exact)
        follow_exactly(pivot, entering.excess);
      else
        follow(pivot, entering.whole * 32, whole.v);
    }
  }

  // Feasible potentials: of columns the largest that the rows' allow. Returns what rounding of reduced costs may hide.
  DEVICE double potentials(const Measured& seen, Lanes<double>* f, Lanes<double>* g) {
    // Where nothing can be cheaper, as for a set against itself, potentials of zero prove it exactly.
    const bool flat = seen.most <= seen.least && none_below<RS, CS>(costs, rows, held, seen.most);
    Lanes<double> means = 0.0, lows = 0.0;
    bool extended = flat;
    UNROLL
    for (int r = 0; r < RS; r++) {
      const Lanes<int> i = lane_index() + 32 * r;
      const Lanes<bool> in = lane_in(rows[r]);
      const Lanes<double> mean = load(memory.mean, i);
      f[r] = flat ? Lanes<double>(seen.most) : load(memory.u, i) + mean;
      means = choose(in, larger(means, magnitude(mean)), means);
      extended = extended || ballot(!in && i < costs.n);
    }
    UNROLL
    for (int c = 0; c < CS; c++) {
      const Lanes<double> low = load(memory.low, lane_index() + 32 * c);
      g[c] = flat ? Lanes<double>(0.0) : low - above[c];
      lows = choose(held[c], larger(lows, magnitude(low)), lows);
      extended = extended || ballot(!held[c] && lane_index() + 32 * c < costs.m);
    }
    if (extended) extend<RS, CS>(costs, memory, rows, columns, f, g);
    return flat ? 0.0 : 8.0 * EPS * reduction.spread + 8.0 * EPS * warp_largest(means) + 8.0 * EPS * warp_largest(lows);
  }

  // Put potentials in the gauge sum_j g_j b_j = 0, write them and tell value less dual value, and by how much rounding
  // may hide more: in these sums, and in reduced costs (`hidden`, for each unit of mass).
  DEVICE void write_potentials(const Weights<RS>& a, const Weights<CS>& b, Lanes<double>* f, Lanes<double>* g,
                               double hidden, const Outputs& out, double& dual, double& rounding) {
    Lanes<double> sum = 0.0;
    UNROLL
    for (int c = 0; c < CS; c++) {
      const Lanes<bool> is = lane_index() + 32 * c < costs.m;
      sum = sum + choose(is, g[c] * (b.w[c] / b.total), Lanes<double>(0.0));
    }
    const double shift = warp_sum(sum);
    Lanes<double> earned = 0.0, rows_weigh = 0.0, columns_weigh = 0.0;
    UNROLL
    for (int r = 0; r < RS; r++) {
      const Lanes<int> i = lane_index() + 32 * r;
      f[r] = f[r] + shift;
      store(out.f, i, f[r], i < costs.n);
      const Lanes<double> part = choose(i < costs.n, f[r] * a.w[r], Lanes<double>(0.0));
      earned = earned + part;
      rows_weigh = rows_weigh + magnitude(part);
    }
    UNROLL
    for (int c = 0; c < CS; c++) {
      const Lanes<int> j = lane_index() + 32 * c;
      g[c] = g[c] - shift;
      store(out.g, j, g[c], j < costs.m);
      columns_weigh = columns_weigh + choose(j < costs.m, magnitude(g[c]) * b.w[c], Lanes<double>(0.0));
    }
    dual = warp_sum(earned);
    rounding = EPS * (costs.n + 2) * warp_sum(rows_weigh) +
               EPS * (costs.m + 6) * (warp_sum(columns_weigh) / b.total + 2.0 * magnitude(shift)) * a.total +
               hidden * a.total;
  }

  DEVICE void finish(const ExactProblems& problems, int k, const Outputs& out) {
    const Weights<RS> a = read_weights<RS>(side_a, total_a);
    const Weights<CS> b = read_weights<CS>(side_b, total_b);
    const Measured seen = write_arcs<RS, CS>(costs, memory, root, total, a, b, out);
    Lanes<double> f[RS], g[CS];
    const double hidden = potentials(seen, f, g);
    double dual, rounding;
    write_potentials(a, b, f, g, hidden, out, dual, rounding);
    const int nodes = count_nodes<RS>(rows) + count_nodes<CS>(columns) + 16;
    const double allowed = CERTAIN * (seen.value - seen.least * a.total) + 16.0 * EPS * nodes * seen.gross +
                           tol * reduction.spread * a.total;
    const double gap = seen.value - dual;
    // Costs whose differences overflow have no reduced costs to decide by.
    if (!(reduction.spread < INFINITE && magnitude(gap) + rounding < INFINITE)) status = FAILED;
    if (status == OPTIMAL && !(magnitude(gap) + rounding <= allowed)) status = UNSURE;
    write_numbers(problems, k, seen.value, gap + rounding, seen.error / a.total, status, pivots);
  }
};

// An unsound problem: no numbers.
template <int RS, int CS>
DEVICE void write_nothing(const ExactProblems& problems, int k, const Outputs& out) {
  const double nothing = NOT_A_NUMBER;
  for (int x = 0; x < problems.n + problems.m - 1; x += 32) {
    const Lanes<int> at = lane_index() + x;
    const Lanes<bool> is = at < problems.n + problems.m - 1;
    store(out.rows, at, Lanes<int>(0), is);
    store(out.cols, at, Lanes<int>(0), is);
    store(out.flow, at, Lanes<double>(nothing), is);
    store(out.f, at, Lanes<double>(nothing), at < problems.n);
    store(out.g, at, Lanes<double>(nothing), at < problems.m);
  }
  write_numbers(problems, k, nothing, nothing, nothing, INVALID, 0);
}

template <int RS, int CS, class Given>
DEVICE void solve_exact(const ExactProblems& problems, int k, char* memory) {
  const int n = problems.n, m = problems.m;
  const i64 arcs = (i64)k * (n + m - 1);
  const Outputs out = {problems.rows + arcs, problems.cols + arcs, problems.flow + arcs, problems.f + (i64)k * n,
                       problems.g + (i64)k * m};
  const double* at_a = problems.a;
  const double* at_b = problems.b;
  if (at_a) at_a += offset_of(k, problems.dims, problems.size, problems.a_stride);
  if (at_b) at_b += offset_of(k, problems.dims, problems.size, problems.b_stride);
  // A missing side is uniform with the total of the other.
  Side side_a = {at_a, problems.a_step, n, 1.0 / n}, side_b = {at_b, problems.b_step, m, 1.0 / m};
  if (!at_b && at_a) side_b.share = checked_weights<RS>(side_a).total / m;
  const Weights<CS> b = checked_weights<CS>(side_b);
  if (!at_a) side_a.share = b.total / n;
  const Weights<RS> a = checked_weights<RS>(side_a);
  const bool agree = magnitude(a.total - b.total) <= problems.totals_rtol * larger(a.total, b.total);
  const Given* cost = (const Given*)problems.cost + offset_of(k, problems.dims, problems.size, problems.cost_stride);
  const Costs<Given> costs = {cost, problems.cost_row, problems.cost_col, n, m};
  Exact<RS, CS, Given> problem(costs, memory, side_a, side_b, a.total, b.total, problems.tol, problems.max_iter);
  if (!agree || !problem.prepare(a, b)) {
    write_nothing<RS, CS>(problems, k, out);
    return;
  }
  problem.solve();
  problem.finish(problems, k, out);
}

#define EXACT(NAME, RS, CS, GIVEN) \
  KERNEL(NAME, ExactProblems, (Memory<RS, CS>::bytes(problems.n)), (solve_exact<RS, CS, GIVEN>(problems, k, memory)))
