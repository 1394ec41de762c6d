// Entropic transport in the log domain by one warp: damped Newton steps on the dual along a falling regularisation.
//
// The method of otfew/transport/entropic/newton.py, which has the derivation. Lanes hold the columns of the side that
// has fewer nodes; rows go by one after another, and what Newton's matrix needs of them is added up as they pass. So
// the plan is never stored.
#pragma once
#include "elementary.h"
#include "sinkhorn_arguments.h"

constexpr double FALL = 4.0;         // factor between one regularisation and the next
constexpr double LEVEL_TOL = 0.5;    // deviation, relative to what is wanted, at which a regularisation is left
constexpr double LIGHT = 1e-2;       // part of the tolerance below which a column has no say in a step's length
constexpr double RIDGE = 1e-13;      // what rounding could take from a matrix whose eigenvalues lie in [0, 1]
constexpr double TINY = 2.2250738585072014e-308;
constexpr int ROWS_AT_A_TIME = 4;    // added to the matrix together: it is read and written less often

// Costs of a problem by strides; rows and columns may have changed places.
template <class T>
struct Entries {
  const T* at;
  i64 row, col;
  DEVICE Lanes<double> operator()(int i, Lanes<int> j) const {
    return convert<double>(load(at, convert<i64>(j) * col + i64(i) * row));
  }
};

struct Side {
  int size;
  const double* weights;  // over their total, or the geometric mean of the totals
  double* potential;      // over reg
  double rho;             // infinite: the marginal is hard
};

// The warp's memory during Newton's method, in doubles.
struct NewtonMemory {
  double *matrix, *rows, *log_b, *psi, *columns, *goal, *step;
  DEVICE NewtonMemory(char* room, int m) {
    matrix = reinterpret_cast<double*>(room);
    rows = matrix + m * (m + 1) / 2;
    log_b = rows + ROWS_AT_A_TIME * m;
    psi = log_b + m;
    columns = psi + m;
    goal = columns + m;
    step = goal + m;
  }
};

struct Outcome {
  int status;
  i64 used;
  double error;
};

// Where row j of a lower triangle begins that is stored row by row; the banks of 32 such rows all differ.
template <class I>
DEVICE I triangle(I j) {
  return j * (j + 1) / 2;
}

// Exponent rho / (rho + level) of a marginal's update.
DEVICE double damping(double rho, double level) { return rho == infinity() ? 1.0 : rho / (rho + level); }

// The plan with the best potentials of the rows for those of the columns: its column sums, the potentials of the rows,
// and the lower triangle of plan' diag(tau / rows) plan. Returns the sum of what the rows carry.
template <class T>
DEVICE double pass_rows(const NewtonMemory& memory, Entries<T> cost, double offset, const Side& a, int m, double level,
                        double tau) {
  const Lanes<int> lane = lane_index();
  const double inverse = 1.0 / level;
  for (int at = 0; at < m * (m + 1) / 2; at += 32)
    store(memory.matrix, lane + at, Lanes<double>(0.0), lane + at < m * (m + 1) / 2);
  for (int at = 0; at < m; at += 32) store(memory.columns, lane + at, Lanes<double>(0.0), lane + at < m);
  sync_lanes();
  double carried = 0.0;
  for (int first = 0; first < a.size; first += ROWS_AT_A_TIME) {
    for (int b = 0; b < ROWS_AT_A_TIME; b++) {
      const int i = first + b;
      double* row = memory.rows + b * m;
      if (i >= a.size) {
        for (int at = 0; at < m; at += 32) store(row, lane + at, Lanes<double>(0.0), lane + at < m);
        continue;
      }
      Lanes<double> highest = -infinity();
      for (int at = 0; at < m; at += 32) {
        const Lanes<bool> in = lane + at < m;
        const Lanes<int> j = smaller(lane + at, Lanes<int>(m - 1));
        const Lanes<double> score =
            load(memory.log_b, j) - (cost(i, j) - offset) * inverse + load(memory.psi, j);
        highest = larger(highest, score);
        store(row, j, score, in);
      }
      const double top = warp_largest(highest);
      Lanes<double> sums = 0.0;
      for (int at = 0; at < m; at += 32) {
        const Lanes<bool> in = lane + at < m;
        const Lanes<int> j = smaller(lane + at, Lanes<int>(m - 1));
        const Lanes<double> part = exponential(load(row, j) - top);
        sums = sums + choose(in, part, Lanes<double>(0.0));
        store(row, j, part, in);
      }
      const double sum = warp_sum(sums);
      const double phi = -tau * (top + logarithm_of_one(sum));
      const double weight = load_one(a.weights, i);
      const double mass = tau == 1.0 ? weight : weight * exponential_of_one(phi * (1.0 - 1.0 / tau));
      store(a.potential, Lanes<int>(i), Lanes<double>(phi), lane == 0);
      carried += mass;
      const double share = mass / sum;
      const double left = mass > TINY ? square_root(tau / mass) : 0.0;
      for (int at = 0; at < m; at += 32) {
        const Lanes<bool> in = lane + at < m;
        const Lanes<int> j = smaller(lane + at, Lanes<int>(m - 1));
        const Lanes<double> entry = load(row, j) * share;
        store(memory.columns, j, load(memory.columns, j) + entry, in);
        store(row, j, entry * left, in);
      }
    }
    sync_lanes();
    for (int at = 0; at < m; at += 32) {
      const Lanes<int> j = smaller(lane + at, Lanes<int>(m - 1));
      const Lanes<double> w = load(memory.rows, j), x = load(memory.rows, j + m);
      const Lanes<double> y = load(memory.rows, j + 2 * m), z = load(memory.rows, j + 3 * m);
      const int last = at + 32 < m ? at + 32 : m;
      for (int k = 0; k < last; k++) {
        const Lanes<bool> lower = k <= lane + at && lane + at < m;
        const Lanes<int> place = choose(lower, triangle(j) + k, triangle(j));
        const Lanes<double> more = (w * load_one(memory.rows, k) + x * load_one(memory.rows, k + m)) +
                                   (y * load_one(memory.rows, k + 2 * m) + z * load_one(memory.rows, k + 3 * m));
        store(memory.matrix, place, load(memory.matrix, place) + more, lower);
      }
    }
    sync_lanes();
  }
  return carried;
}

// Solve (diag(curvature) - matrix) step = goal - columns into `step`; see ``schur_solve``. The matrix is overwritten.
DEVICE void solve_newton(const NewtonMemory& memory, int m, double tau, bool singular) {
  const Lanes<int> lane = lane_index();
  // `rows` has room for two vectors: the scale that makes the diagonal one, and the direction of the null space.
  double *root = memory.rows, *direction = memory.rows + m;
  Lanes<double> squares = 0.0;
  for (int at = 0; at < m; at += 32) {
    const Lanes<bool> in = lane + at < m;
    const Lanes<int> j = smaller(lane + at, Lanes<int>(m - 1));
    const Lanes<double> curvature = load(memory.columns, j) + load(memory.goal, j) * (1.0 / tau - 1.0);
    const Lanes<bool> held = curvature > TINY;
    const Lanes<double> r =
        choose(held, 1.0 / square_root(choose(held, curvature, Lanes<double>(1.0))), Lanes<double>(0.0));
    const Lanes<double> d = curvature * r;
    squares = squares + choose(in, d * d, Lanes<double>(0.0));
    store(root, j, r, in);
    store(direction, j, d, in);
    store(memory.step, j, (load(memory.goal, j) - load(memory.columns, j)) * r, in);
  }
  const double square = warp_sum(squares);
  const double unit = singular && square > 0.0 ? 1.0 / square : 0.0;
  sync_lanes();
  for (int i = 0; i < m; i++) {
    for (int at = 0; at <= i; at += 32) {
      const Lanes<bool> in = lane + at <= i;
      const Lanes<int> j = smaller(lane + at, Lanes<int>(i));
      const Lanes<double> entry = load_one(direction, i) * unit * load(direction, j) -
                                  load_one(root, i) * load(root, j) * load(memory.matrix, triangle(i) + j);
      store(memory.matrix, triangle(i) + j, entry + choose(j == i, Lanes<double>(1.0 + RIDGE * m), Lanes<double>(0.0)),
            in);
    }
  }
  sync_lanes();
  // Cholesky's factor, column by column, and the right hand side with it.
  for (int k = 0; k < m; k++) {
    double pivot = 0.0;
    for (int at = k / 32 * 32; at < m; at += 32) {
      const Lanes<bool> in = lane + at >= k && lane + at < m;
      const Lanes<int> i = larger(smaller(lane + at, Lanes<int>(m - 1)), Lanes<int>(k));
      Lanes<double> entry = load(memory.matrix, triangle(i) + k);
      for (int t = 0; t < k; t++)
        entry = entry - load(memory.matrix, triangle(i) + t) * load_one(memory.matrix, triangle(k) + t);
      if (at == k / 32 * 32) pivot = square_root(from_lane(entry, k & 31));
      store(memory.matrix, triangle(i) + k, choose(i == k, Lanes<double>(pivot), entry / pivot), in);
    }
    sync_lanes();
    const double y = load_one(memory.step, k) / pivot;
    sync_lanes();
    for (int at = k / 32 * 32; at < m; at += 32) {
      const Lanes<bool> in = lane + at >= k && lane + at < m;
      const Lanes<int> i = larger(smaller(lane + at, Lanes<int>(m - 1)), Lanes<int>(k));
      const Lanes<double> rest = load(memory.step, i) - load(memory.matrix, triangle(i) + k) * y;
      store(memory.step, i, choose(i == k, Lanes<double>(y), rest), in);
    }
    sync_lanes();
  }
  for (int k = m - 1; k >= 0; k--) {
    const double y = load_one(memory.step, k) / load_one(memory.matrix, triangle(k) + k);
    sync_lanes();
    for (int at = 0; at <= k; at += 32) {
      const Lanes<bool> in = lane + at <= k;
      const Lanes<int> i = smaller(lane + at, Lanes<int>(k));
      const Lanes<double> rest = load(memory.step, i) - load(memory.matrix, triangle(k) + i) * y;
      store(memory.step, i, choose(i == k, Lanes<double>(y * load_one(root, k)), rest), in);
    }
    sync_lanes();
  }
}

// Potentials of columns without weight: what they would be with a little. Those of the rows are known.
template <class T>
DEVICE void extend(Entries<T> cost, double offset, const Side& a, const Side& b, double reg) {
  const Lanes<int> lane = lane_index();
  const double inverse = 1.0 / reg, tau = damping(b.rho, reg);
  for (int at = 0; at < b.size; at += 32) {
    const Lanes<int> j = smaller(lane + at, Lanes<int>(b.size - 1));
    const Lanes<bool> empty = lane + at < b.size && load(b.weights, j) == 0.0;
    if (!ballot(empty)) continue;
    Lanes<double> top = -infinity(), sum = 0.0;
    for (int i = 0; i < a.size; i++) {
      if (load_one(a.weights, i) > 0.0)
        top = larger(top, load_one(a.potential, i) - (cost(i, j) - offset) * inverse);
    }
    for (int i = 0; i < a.size; i++) {
      const double weight = load_one(a.weights, i);
      if (weight > 0.0)
        sum = sum + exponential(load_one(a.potential, i) - (cost(i, j) - offset) * inverse - top) * weight;
    }
    store(b.potential, j, (top + logarithm(sum)) * -tau, empty);
  }
}

// Maximise the dual; see ``otfew.transport.entropic.newton.maximise``.
//
// cost(i, j): row i of a.size, column j of b.size, which is no larger; spread: its range. With `warm`, b.potential
// holds potentials near the solution at reg.
template <class T>
DEVICE Outcome newton(char* room, Entries<T> cost, double offset, double spread, Side a, Side b, double reg, double tol,
                      i64 max_iter, bool warm) {
  const Lanes<int> lane = lane_index();
  const int m = b.size;
  const NewtonMemory memory(room, m);
  const bool soft_a = a.rho != infinity(), soft_b = b.rho != infinity(), soft = soft_a || soft_b;
  const double price = 1.0 / ((soft_a ? 1.0 / a.rho : 0.0) + (soft_b ? 1.0 / b.rho : 0.0));
  // Above the prices of soft marginals a regularisation teaches nothing.
  const double dearest = larger(soft_a ? a.rho : 0.0, soft_b ? b.rho : 0.0);
  double level = soft ? smaller(spread, dearest) : spread;
  // A spread that is not a number stays one, so that the problem fails.
  if (warm || level < reg) level = reg;
  for (int at = 0; at < m; at += 32) {
    const Lanes<bool> in = lane + at < m;
    const Lanes<int> j = smaller(lane + at, Lanes<int>(m - 1));
    const Lanes<double> weight = load(b.weights, j);
    const Lanes<bool> held = weight > 0.0;
    store(memory.log_b, j,
          choose(held, logarithm(choose(held, weight, Lanes<double>(1.0))), Lanes<double>(-infinity())), in);
    store(memory.psi, j, warm ? load(b.potential, j) : Lanes<double>(0.0), in);
  }
  sync_lanes();
  Outcome out = {OUT_OF_ITERATIONS, 0, 0.0};
  for (i64 used = 1;; used++) {
    if (used == max_iter && level != reg) {
      // Whatever the potentials are by now, what is handed out is their plan at reg.
      for (int at = 0; at < m; at += 32) {
        const Lanes<int> j = smaller(lane + at, Lanes<int>(m - 1));
        store(memory.psi, j, load(memory.psi, j) * (level / reg), lane + at < m);
      }
      level = reg;
      sync_lanes();
    }
    const double tau_a = damping(a.rho, level), tau_b = damping(b.rho, level);
    const double carried = pass_rows(memory, cost, offset, a, m, level, tau_a);
    Lanes<double> worst_of = 0.0, strayed_of = 0.0, missed_of = 0.0, goals = 0.0;
    for (int at = 0; at < m; at += 32) {
      const Lanes<bool> in = lane + at < m;
      const Lanes<int> j = smaller(lane + at, Lanes<int>(m - 1));
      Lanes<double> goal = load(b.weights, j);
      if (soft_b) goal = goal * exponential(load(memory.psi, j) * (1.0 - 1.0 / tau_b));
      const Lanes<double> missed = magnitude(goal - load(memory.columns, j));
      worst_of = larger(worst_of, missed);
      strayed_of = larger(strayed_of, missed / (goal + LIGHT * tol));
      missed_of = missed_of + choose(in, missed, Lanes<double>(0.0));
      goals = goals + choose(in, goal, Lanes<double>(0.0));
      store(memory.goal, j, goal, in);
    }
    const double worst = warp_largest(worst_of), strayed = warp_largest(strayed_of);
    const bool last = level <= reg, broken = !is_finite(warp_sum(missed_of)), solved = last && worst <= tol;
    if (broken || solved || used >= max_iter) {
      out.status = broken ? FAILED_ENTROPIC : solved ? OPTIMAL_ENTROPIC : OUT_OF_ITERATIONS;
      out.used = used;
      out.error = broken ? not_a_number() : worst;
      break;
    }
    // The best constant, which leaves the plan alone: along it Newton's steps would be many and small.
    double shift = 0.0;
    if (soft) {
      const double wanted = warp_sum(goals);
      shift = price * logarithm_of_one((carried > TINY ? carried : TINY) / (wanted > TINY ? wanted : TINY)) / level;
    }
    if (shift > 1.0 || shift < -1.0) {
      for (int at = 0; at < m; at += 32) {
        const Lanes<int> j = smaller(lane + at, Lanes<int>(m - 1));
        store(memory.psi, j, load(memory.psi, j) - shift, lane + at < m);
      }
    } else {
      sync_lanes();
      solve_newton(memory, m, tau_b, !soft);
      Lanes<double> high = -infinity(), low = infinity();
      for (int at = 0; at < m; at += 32) {
        const Lanes<int> j = smaller(lane + at, Lanes<int>(m - 1));
        const Lanes<bool> counts = larger(load(memory.columns, j), load(memory.goal, j)) > LIGHT * tol;
        const Lanes<double> step = load(memory.step, j);
        high = choose(counts, larger(high, step), high);
        low = choose(counts, smaller(low, step), low);
      }
      const double above = warp_largest(high), below = warp_smallest(low);
      const double longest = larger(magnitude(above), magnitude(below));
      // Constants of self-concordance of the rows' terms and of the columns'.
      double length = larger((above - below) + 3.0 * (1.0 - tau_a) * longest, (1.0 / tau_b - 1.0) * longest);
      if (length < TINY) length = TINY;
      const double factor = from_lane(logarithm_of_one_and(Lanes<double>(length)), 0) / length;
      for (int at = 0; at < m; at += 32) {
        const Lanes<int> j = smaller(lane + at, Lanes<int>(m - 1));
        const Lanes<bool> counts = larger(load(memory.columns, j), load(memory.goal, j)) > LIGHT * tol;
        const Lanes<double> step = load(memory.step, j);
        // Columns that carry nothing and are to carry nothing would hold up all others.
        const Lanes<double> far = logarithm_of_one_and(magnitude(step));
        const Lanes<double> alone = choose(step < 0.0, 0.0 - far, far);
        store(memory.psi, j, load(memory.psi, j) + choose(counts, step * factor, alone), lane + at < m);
      }
    }
    if (strayed <= LEVEL_TOL && !last) {
      const double next = level / FALL < reg ? reg : level / FALL;
      for (int at = 0; at < m; at += 32) {
        const Lanes<int> j = smaller(lane + at, Lanes<int>(m - 1));
        store(memory.psi, j, load(memory.psi, j) * (level / next), lane + at < m);
      }
      level = next;
    }
    sync_lanes();
  }
  for (int at = 0; at < m; at += 32) {
    const Lanes<int> j = smaller(lane + at, Lanes<int>(m - 1));
    store(b.potential, j, load(memory.psi, j), lane + at < m);
  }
  sync_lanes();
  extend(cost, offset, a, b, reg);
  sync_lanes();
  return out;
}
