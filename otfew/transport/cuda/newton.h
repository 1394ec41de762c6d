// Entropic transport in the log domain by one warp: damped Newton steps on the dual along a falling regularisation.
//
// The method of otfew/transport/entropic/newton.py, which has the derivation. Lanes hold the columns of the side that
// has fewer nodes; rows go by one after another, and what Newton's matrix needs of them is added up as they pass. So
// the plan is never stored.
#pragma once
#include "elementary.h"
#include "entropic_arguments.h"

constexpr double FALL = 4.0;       // factor between one regularisation and the next
constexpr double LEVEL_TOL = 0.5;  // deviation, relative to what is wanted, at which a regularisation is left
constexpr double LIGHT = 1e-2;     // part of the tolerance below which a column has no say in a step's length
constexpr double RIDGE = 1e-13;    // what rounding could take from a matrix whose eigenvalues lie in [0, 1]
constexpr double TINY = 2.2250738585072014e-308;
constexpr int ROWS_AT_A_TIME = 4;  // added to the matrix together: it is read and written less often

// Numbers of 32 nodes, one a lane, and which of them there are. Loops over groups are ROLLED: most problems have one or
// two, and code that is four times as long takes its time, too.
struct Group {
  Lanes<int> j;
  Lanes<bool> in;
};
DEVICE Group group(int first, int size) {
  const Lanes<int> j = lane_index() + first;
  return {j, j < size};
}
DEVICE Lanes<double> only(Lanes<bool> in, Lanes<double> x) { return choose(in, x, Lanes<double>(0.0)); }
DEVICE Lanes<double> load_some(const double* from, const Group& g) {
  return load(from, g.j, g.in, Lanes<double>(0.0));
}
// Store the same number once.
template <class T>
DEVICE void store_one(T* to, int at, T x) {
  store(to, Lanes<int>(at), Lanes<T>(x), lane_index() == 0);
}

// Costs of a problem by strides; rows and columns may have changed places.
template <class T>
struct Entries {
  const T* at;
  i64 row, col;
  DEVICE Lanes<double> operator()(int i, const Group& g) const {
    return convert<double>(load(at, convert<i64>(g.j) * col + i64(i) * row, g.in, Lanes<T>(T(0))));
  }
};

struct Side {
  int size;
  const double* weights;  // over their total, or the geometric mean of the totals
  double* potential;      // over reg
  double rho;             // infinite: the marginal is hard
  const int* part;        // null, or where pairs are missing the part to which each node belongs, -1 for none
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
DEVICE int newton_bytes(int m) { return 8 * (m * (m + 1) / 2 + (ROWS_AT_A_TIME + 5) * m); }

struct Outcome {
  int status;
  i64 used;
  double error;
};

// Where row j begins in a lower triangle that is stored row by row. The banks of 32 such rows all differ.
template <class I>
DEVICE I triangle(I j) {
  return j * (j + 1) / 2;
}

// Exponent rho / (rho + level) of a marginal's update.
DEVICE double damping(double rho, double level) { return rho == infinity() ? 1.0 : rho / (rho + level); }

// The plan's row i with the best potential for those of the columns. Adds it to the column sums, leaves it times
// sqrt(tau / what the row carries) in `row`, and returns what the row carries.
template <class T>
DEVICE double pass_row(const NewtonMemory& memory, Entries<T> cost, double offset, const Side& a, int i, int m,
                       double inverse, double tau, double* row) {
  Lanes<double> highest = -infinity();
  ROLLED
  for (int at = 0; at < m; at += 32) {
    const Group g = group(at, m);
    const Lanes<double> score = load_some(memory.log_b, g) - (cost(i, g) - offset) * inverse + load_some(memory.psi, g);
    highest = choose(g.in, larger(highest, score), highest);
    store(row, g.j, score, g.in);
  }
  const double top = warp_largest(highest);
  Lanes<double> sums = 0.0;
  ROLLED
  for (int at = 0; at < m; at += 32) {
    const Group g = group(at, m);
    const Lanes<double> part = exponential(load_some(row, g) - top);
    sums = sums + only(g.in, part);
    store(row, g.j, part, g.in);
  }
  const double sum = warp_sum(sums);
  const double phi = -tau * (top + logarithm_of_one(sum));
  const double weight = load_one(a.weights, i);
  const double mass = tau == 1.0 ? weight : weight * exponential_of_one(phi * (1.0 - 1.0 / tau));
  store_one(a.potential, i, phi);
  const double share = mass / sum;
  const double left = mass > TINY ? square_root(tau / mass) : 0.0;
  ROLLED
  for (int at = 0; at < m; at += 32) {
    const Group g = group(at, m);
    const Lanes<double> entry = load_some(row, g) * share;
    store(memory.columns, g.j, load_some(memory.columns, g) + entry, g.in);
    store(row, g.j, entry * left, g.in);
  }
  return mass;
}

// All rows: column sums, potentials of the rows, and the lower triangle of plan' diag(tau / rows) plan. Returns what
// the rows carry together.
template <class T>
DEVICE double pass_rows(const NewtonMemory& memory, Entries<T> cost, double offset, const Side& a, int m, double level,
                        double tau) {
  const double inverse = 1.0 / level;
  ROLLED
  for (int at = 0; at < triangle(m); at += 32) {
    const Group g = group(at, triangle(m));
    store(memory.matrix, g.j, Lanes<double>(0.0), g.in);
  }
  ROLLED
  for (int at = 0; at < m; at += 32) {
    const Group g = group(at, m);
    store(memory.columns, g.j, Lanes<double>(0.0), g.in);
  }
  sync_lanes();
  double carried = 0.0;
  for (int first = 0; first < a.size; first += ROWS_AT_A_TIME) {
    for (int b = 0; b < ROWS_AT_A_TIME; b++) {
      double* row = memory.rows + b * m;
      if (first + b < a.size) {
        carried += pass_row(memory, cost, offset, a, first + b, m, inverse, tau, row);
        continue;
      }
      ROLLED
      for (int at = 0; at < m; at += 32) {
        const Group g = group(at, m);
        store(row, g.j, Lanes<double>(0.0), g.in);
      }
    }
    sync_lanes();
    ROLLED
    for (int at = 0; at < m; at += 32) {
      const Group g = group(at, m);
      const Lanes<double> w = load_some(memory.rows, g), x = load_some(memory.rows + m, g);
      const Lanes<double> y = load_some(memory.rows + 2 * m, g), z = load_some(memory.rows + 3 * m, g);
      const Lanes<int> begin = triangle(g.j);
      for (int k = 0; k < smaller(at + 32, m); k++) {
        const Lanes<bool> lower = g.in && k <= g.j;
        const Lanes<double> more = (w * load_one(memory.rows, k) + x * load_one(memory.rows, k + m)) +
                                   (y * load_one(memory.rows, k + 2 * m) + z * load_one(memory.rows, k + 3 * m));
        const Lanes<double> before = load(memory.matrix, begin + k, lower, Lanes<double>(0.0));
        store(memory.matrix, begin + k, before + more, lower);
      }
    }
    sync_lanes();
  }
  return carried;
}

// Make of the direction of the null space those of its parts, each of length one.
DEVICE void part_direction(double* direction, double* room, const int* part, int m) {
  ROLLED
  for (int at = 0; at < m; at += 32) {
    const Group g = group(at, m);
    const Lanes<int> mine = load(part, g.j, g.in, Lanes<int>(-1));
    Lanes<double> square = 0.0;
    for (int k = 0; k < m; k++) {
      const double d = load_one(direction, k);
      square = square + only(mine == load_one(part, k), Lanes<double>(d * d));
    }
    const Lanes<bool> held = mine >= 0 && square > 0.0;
    const Lanes<double> length = square_root(choose(held, square, Lanes<double>(1.0)));
    store(room, g.j, only(held, load_some(direction, g) / length), g.in);
  }
  sync_lanes();
  ROLLED
  for (int at = 0; at < m; at += 32) {
    const Group g = group(at, m);
    store(direction, g.j, load_some(room, g), g.in);
  }
  sync_lanes();
}

// Solve (diag(curvature) - matrix) step = goal - columns into `step`; see ``schur_solve``. The matrix is lost.
DEVICE void solve_newton(const NewtonMemory& memory, int m, double tau, bool singular, const int* part) {
  // `rows` has room for three vectors: the scale that makes the diagonal one, the direction of the null space, and what
  // is made of that.
  double *root = memory.rows, *direction = memory.rows + m;
  Lanes<double> squares = 0.0;
  ROLLED
  for (int at = 0; at < m; at += 32) {
    const Group g = group(at, m);
    const Lanes<double> goal = load_some(memory.goal, g), columns = load_some(memory.columns, g);
    const Lanes<double> curvature = columns + goal * (1.0 / tau - 1.0);
    const Lanes<bool> held = curvature > TINY;
    const Lanes<double> r = only(held, 1.0 / square_root(choose(held, curvature, Lanes<double>(1.0))));
    const Lanes<double> d = curvature * r;
    squares = squares + d * d;
    store(root, g.j, r, g.in);
    store(direction, g.j, d, g.in);
    store(memory.step, g.j, (goal - columns) * r, g.in);
  }
  const double square = warp_sum(squares);
  double unit = singular && square > 0.0 ? 1.0 / square : 0.0;
  sync_lanes();
  const bool parted = singular && part != nullptr;
  if (parted) {
    part_direction(direction, memory.rows + 2 * m, part, m);
    unit = 1.0;
  }
  for (int i = 0; i < m; i++) {
    double* row = memory.matrix + triangle(i);
    ROLLED
    for (int at = 0; at <= i; at += 32) {
      const Group g = group(at, i + 1);
      const Lanes<double> scaled = load_some(row, g) * load_some(root, g) * load_one(root, i);
      Lanes<double> along = load_some(direction, g) * (load_one(direction, i) * unit);
      if (parted) along = only(load(part, g.j, g.in, Lanes<int>(-1)) == load_one(part, i), along);
      const Lanes<double> entry = along - scaled;
      store(row, g.j, entry + only(g.j == i, 1.0 + RIDGE * m), g.in);
    }
  }
  sync_lanes();
  // Cholesky's factor, column by column, and the right hand side with it.
  for (int k = 0; k < m; k++) {
    const double* row = memory.matrix + triangle(k);
    double pivot = 0.0;
    ROLLED
    for (int at = k / 32 * 32; at < m; at += 32) {
      const Group g = group(at, m);
      const Lanes<bool> below = g.in && g.j >= k;
      const Lanes<int> begin = triangle(g.j);
      Lanes<double> entry = load(memory.matrix, begin + k, below, Lanes<double>(1.0));
      for (int t = 0; t < k; t++)
        entry = entry - load(memory.matrix, begin + t, below, Lanes<double>(0.0)) * load_one(row, t);
      if (at <= k) pivot = square_root(from_lane(entry, k & 31));
      store(memory.matrix, begin + k, choose(g.j == k, Lanes<double>(pivot), entry / pivot), below);
    }
    const double y = load_one(memory.step, k) / pivot;
    sync_lanes();
    ROLLED
    for (int at = k / 32 * 32; at < m; at += 32) {
      const Group g = group(at, m);
      const Lanes<bool> below = g.in && g.j >= k;
      const Lanes<double> factor = load(memory.matrix, triangle(g.j) + k, below, Lanes<double>(0.0));
      const Lanes<double> rest = load_some(memory.step, g) - factor * y;
      store(memory.step, g.j, choose(g.j == k, Lanes<double>(y), rest), below);
    }
    sync_lanes();
  }
  for (int k = m - 1; k >= 0; k--) {
    const double* row = memory.matrix + triangle(k);
    const double y = load_one(memory.step, k) / load_one(row, k), scaled = y * load_one(root, k);
    sync_lanes();
    ROLLED
    for (int at = 0; at <= k; at += 32) {
      const Group g = group(at, k + 1);
      const Lanes<double> rest = load_some(memory.step, g) - load_some(row, g) * y;
      store(memory.step, g.j, choose(g.j == k, Lanes<double>(scaled), rest), g.in);
    }
    sync_lanes();
  }
}

// Move the potentials by a step shortened where it is long; see ``_newton``.
DEVICE void take_step(const NewtonMemory& memory, int m, double tau_a, double tau_b, double light) {
  Lanes<double> high = -infinity(), low = infinity();
  ROLLED
  for (int at = 0; at < m; at += 32) {
    const Group g = group(at, m);
    const Lanes<double> step = load_some(memory.step, g);
    const Lanes<bool> counts = larger(load_some(memory.columns, g), load_some(memory.goal, g)) > light;
    high = choose(counts, larger(high, step), high);
    low = choose(counts, smaller(low, step), low);
  }
  const double above = warp_largest(high), below = warp_smallest(low);
  const double longest = larger(magnitude(above), magnitude(below));
  // Constants of self-concordance of the rows' terms and of the columns'.
  double length = larger((above - below) + 3.0 * (1.0 - tau_a) * longest, (1.0 / tau_b - 1.0) * longest);
  if (length < TINY) length = TINY;
  const double factor = from_lane(logarithm_of_one_and(Lanes<double>(length)), 0) / length;
  ROLLED
  for (int at = 0; at < m; at += 32) {
    const Group g = group(at, m);
    const Lanes<double> step = load_some(memory.step, g);
    const Lanes<bool> counts = larger(load_some(memory.columns, g), load_some(memory.goal, g)) > light;
    // Columns that carry nothing and are to carry nothing would hold up all others.
    const Lanes<double> far = logarithm_of_one_and(magnitude(step));
    const Lanes<double> alone = choose(step < 0.0, -far, far);
    store(memory.psi, g.j, load_some(memory.psi, g) + choose(counts, step * factor, alone), g.in);
  }
}

// The potentials belong to another regularisation: they are over `level` and become over `next`.
DEVICE void change_level(double* psi, int m, double level, double next) {
  ROLLED
  for (int at = 0; at < m; at += 32) {
    const Group g = group(at, m);
    store(psi, g.j, load_some(psi, g) * (level / next), g.in);
  }
}

// Potentials of columns without weight: what they would be with a little. Those of the rows are known.
template <class T>
DEVICE void extend(Entries<T> cost, double offset, const Side& a, const Side& b, double reg) {
  const double inverse = 1.0 / reg, tau = damping(b.rho, reg);
  ROLLED
  for (int at = 0; at < b.size; at += 32) {
    const Group g = group(at, b.size);
    const Lanes<bool> empty = g.in && load_some(b.weights, g) == 0.0;
    if (!ballot(empty)) continue;
    Lanes<double> top = -infinity(), sum = 0.0;
    for (int i = 0; i < a.size; i++) {
      if (load_one(a.weights, i) > 0.0)
        top = larger(top, load_one(a.potential, i) - (cost(i, g) - offset) * inverse);
    }
    for (int i = 0; i < a.size; i++) {
      const double weight = load_one(a.weights, i);
      if (weight > 0.0)
        sum = sum + exponential(load_one(a.potential, i) - (cost(i, g) - offset) * inverse - top) * weight;
    }
    store(b.potential, g.j, (top + logarithm(sum)) * -tau, empty);
  }
}

// Maximise the dual; see ``otfew.transport.entropic.newton.maximise``.
//
// cost(i, j): row i of a.size, column j of b.size, which is no larger; spread: its range. With `warm`, b.potential
// holds potentials near the solution at reg.
template <class T>
DEVICE Outcome newton(char* room, Entries<T> cost, double offset, double spread, const Side& a, const Side& b,
                      double reg, double tol, i64 max_iter, bool warm) {
  const int m = b.size;
  const NewtonMemory memory(room, m);
  const bool soft_a = a.rho != infinity(), soft_b = b.rho != infinity(), soft = soft_a || soft_b;
  const double price = 1.0 / ((soft_a ? 1.0 / a.rho : 0.0) + (soft_b ? 1.0 / b.rho : 0.0));
  // Above the prices of soft marginals a regularisation teaches nothing.
  const double dearest = larger(soft_a ? a.rho : 0.0, soft_b ? b.rho : 0.0);
  double level = soft ? smaller(spread, dearest) : spread;
  if (warm || level < reg) level = reg;
  ROLLED
  for (int at = 0; at < m; at += 32) {
    const Group g = group(at, m);
    const Lanes<double> weight = load_some(b.weights, g);
    const Lanes<bool> held = weight > 0.0;
    const Lanes<double> log_b = logarithm(choose(held, weight, Lanes<double>(1.0)));
    store(memory.log_b, g.j, choose(held, log_b, Lanes<double>(-infinity())), g.in);
    Lanes<double> psi = 0.0;
    if (warm) psi = load_some(b.potential, g);
    store(memory.psi, g.j, psi, g.in);
  }
  Outcome out = {MAX_ITER, 1, 0.0};
  for (;; out.used++) {
    if (out.used == max_iter && level != reg) {
      // Whatever the potentials are by now, what is handed out is their plan at reg.
      change_level(memory.psi, m, level, reg);
      level = reg;
    }
    const double tau_a = damping(a.rho, level), tau_b = damping(b.rho, level);
    sync_lanes();
    const double carried = pass_rows(memory, cost, offset, a, m, level, tau_a);
    Lanes<double> most = 0.0, furthest = 0.0, all = 0.0, goals = 0.0;
    ROLLED
    for (int at = 0; at < m; at += 32) {
      const Group g = group(at, m);
      Lanes<double> goal = load_some(b.weights, g);
      if (soft_b) goal = goal * exponential(load_some(memory.psi, g) * (1.0 - 1.0 / tau_b));
      const Lanes<double> missed = magnitude(goal - load_some(memory.columns, g));
      most = larger(most, missed);
      furthest = larger(furthest, missed / (goal + LIGHT * tol));
      all = all + missed;
      goals = goals + goal;
      store(memory.goal, g.j, goal, g.in);
    }
    const double strayed = warp_largest(furthest);
    const bool last = level <= reg, broken = !is_finite(warp_sum(all));
    out.error = broken ? not_a_number() : warp_largest(most);
    const bool solved = last && out.error <= tol;
    if (broken || solved || out.used >= max_iter) {
      out.status = broken ? FAILED : solved ? OPTIMAL : MAX_ITER;
      break;
    }
    // The best constant, which leaves the plan alone: along it Newton's steps would be many and small.
    double shift = 0.0;
    if (soft) {
      const double rows = larger(carried, TINY), wanted = larger(warp_sum(goals), TINY);
      shift = price * logarithm_of_one(rows / wanted) / level;
    }
    if (magnitude(shift) > 1.0) {
      ROLLED
      for (int at = 0; at < m; at += 32) {
        const Group g = group(at, m);
        store(memory.psi, g.j, load_some(memory.psi, g) - shift, g.in);
      }
    } else {
      sync_lanes();
      solve_newton(memory, m, tau_b, !soft, b.part);
      take_step(memory, m, tau_a, tau_b, LIGHT * tol);
    }
    if (strayed <= LEVEL_TOL && !last) {
      const double next = larger(level / FALL, reg);
      change_level(memory.psi, m, level, next);
      level = next;
    }
  }
  ROLLED
  for (int at = 0; at < m; at += 32) {
    const Group g = group(at, m);
    store(b.potential, g.j, load_some(memory.psi, g), g.in);
  }
  sync_lanes();
  extend(cost, offset, a, b, reg);
  sync_lanes();
  return out;
}
