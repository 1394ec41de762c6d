// Entropic transport by one warp a problem: Sinkhorn's scalings in the plain domain, and what they leave to Newton.
//
// The methods are those of otfew/transport/entropic/plain.py and newton.py. A problem is read once, stays in the warp's
// memory until it is solved, and knows nothing of the others: an answer is the same, bit for bit, whatever its
// batch-mates and wherever it stands.
#pragma once
#include "entry.h"
#include "newton.h"

constexpr double LEAST_TOTAL = 1e-290, LARGEST_TOTAL = 1e290;  // otfew.transport.problem.TOTALS_RANGE

// The warp's memory in the plain domain, in the costs' dtype.
template <class T>
struct PlainMemory {
  T *kernel, *a, *u, *p, *b, *v, *q, *sums;
  int stride;  // odd: neither a row nor a column of the kernel meets one memory bank twice
  DEVICE PlainMemory(char* room, int n, int m) {
    stride = m | 1;
    kernel = reinterpret_cast<T*>(room);
    a = kernel + n * stride;
    u = a + n;
    p = u + n;
    b = p + n;
    v = b + m;
    q = v + m;
    sums = q + m;
  }
};

// Bytes of a warp's memory, in which Newton's method comes after the plain domain.
template <class T>
DEVICE int entropic_bytes(const EntropicProblems& s) {
  const int plain = s.plain > 0 ? int(sizeof(T)) * (s.n * (s.m | 1) + 3 * s.n + 4 * s.m) : 0;
  return (larger(plain, newton_bytes(smaller(s.n, s.m))) + 15) / 16 * 16;
}

struct Total {
  double sum;
  bool sound;  // no weight is negative or NaN
};

DEVICE Total total_of(const double* weights, i64 step, int size) {
  Lanes<double> sum = 0.0;
  Lanes<bool> sound = true;
  ROLLED
  for (int at = 0; at < size; at += 32) {
    const Group g = group(at, size);
    const Lanes<double> w = load(weights, convert<i64>(g.j) * step, g.in, Lanes<double>(0.0));
    sum = sum + w;
    sound = sound && w >= 0.0;
  }
  return {warp_sum(sum), !ballot(!sound)};
}

// Write weights over `divisor`; without any, equal ones of the sum `total`.
DEVICE void write_unit(const double* weights, i64 step, double total, double divisor, double* unit, int size) {
  ROLLED
  for (int at = 0; at < size; at += 32) {
    const Group g = group(at, size);
    Lanes<double> w = total / size;
    if (weights) w = load(weights, convert<i64>(g.j) * step, g.in, Lanes<double>(0.0));
    store(unit, g.j, w / divisor, g.in);
  }
}

// y_i = sum_j matrix[i * out_step + j * in_step] x_j.
template <class T>
DEVICE void multiply(const T* matrix, int out_step, int in_step, const T* x, T* y, int outs, int ins) {
  const Lanes<T> zero = T(0);
  // Lanes hold the sums, or, where these are few, the terms; counted in instructions.
  if ((outs + 31) / 32 * ins * 4 <= outs * ((ins + 31) / 32 * 5 + 12)) {
    ROLLED
    for (int at = 0; at < outs; at += 32) {
      const Group g = group(at, outs);
      const Lanes<int> place = g.j * out_step;
      Lanes<T> sum = zero;
      for (int j = 0; j < ins; j++) sum = sum + load(matrix, place + j * in_step, g.in, zero) * load_one(x, j);
      store(y, g.j, sum, g.in);
    }
  } else {
    for (int i = 0; i < outs; i++) {
      Lanes<T> sum = zero;
      ROLLED
      for (int at = 0; at < ins; at += 32) {
        const Group g = group(at, ins);
        sum = sum + load(matrix, g.j * in_step + i * out_step, g.in, zero) * load(x, g.j, g.in, zero);
      }
      store_one(y, i, warp_sum(sum));
    }
  }
}

struct Survey {
  double sum, low, high;
};

// Look over the costs; with `closes`, over those that are not infinite, whose sum is brought up to that of all.
template <class T>
DEVICE Survey look_over(Entries<T> cost, int n, int m, bool closes) {
  Lanes<double> sum = 0.0, low = infinity(), high = -infinity(), count = 0.0;
  for (int i = 0; i < n; i++) {
    ROLLED
    for (int at = 0; at < m; at += 32) {
      const Group g = group(at, m);
      const Lanes<double> x = cost(i, g);
      if (closes) {
        const Lanes<bool> open = g.in && x != infinity();
        sum = sum + only(open, x);
        count = count + only(open, 1.0);
        low = choose(open, smaller(x, low), low);
        high = choose(open, larger(x, high), high);
        continue;
      }
      sum = sum + x;
      low = choose(g.in, smaller(x, low), low);
      high = choose(g.in, larger(x, high), high);
    }
  }
  if (closes) {
    const double open = warp_sum(count);
    return {warp_sum(sum) / open * (double(n) * double(m)), warp_smallest(low), warp_largest(high)};
  }
  return {warp_sum(sum), warp_smallest(low), warp_largest(high)};
}

// Copy costs into the warp's memory, along whichever of rows and columns lies closer together.
template <class T>
DEVICE void stage(Entries<T> cost, int n, int m, T* to, int stride) {
  const bool down = magnitude(double(cost.row)) < magnitude(double(cost.col));
  const int outer = down ? m : n, inner = down ? n : m;
  const i64 step = down ? cost.col : cost.row, pace = down ? cost.row : cost.col;
  const int to_step = down ? 1 : stride, to_pace = down ? stride : 1;
  for (int i = 0; i < outer; i++) {
    ROLLED
    for (int at = 0; at < inner; at += 32) {
      const Group g = group(at, inner);
      const Lanes<T> x = load(cost.at, convert<i64>(g.j) * pace + i * step, g.in, Lanes<T>(T(0)));
      store(to, g.j * to_pace + i * to_step, x, g.in);
    }
  }
}

// Write -log of sums as potentials.
template <class T>
DEVICE void write_potentials(const T* sums, double* potential, int size) {
  ROLLED
  for (int at = 0; at < size; at += 32) {
    const Group g = group(at, size);
    store(potential, g.j, -logarithm(convert<double>(load(sums, g.j, g.in, Lanes<T>(T(1))))), g.in);
  }
}

// Write weights in the costs' dtype.
template <class T>
DEVICE void narrow(const double* weights, T* to, int size) {
  ROLLED
  for (int at = 0; at < size; at += 32) {
    const Group g = group(at, size);
    store(to, g.j, convert<T>(load_some(weights, g)), g.in);
  }
}

DEVICE double weighted_sum(const double* weights, const double* potential, int size) {
  Lanes<double> sum = 0.0;
  ROLLED
  for (int at = 0; at < size; at += 32) {
    const Group g = group(at, size);
    sum = sum + load_some(weights, g) * load_some(potential, g);
  }
  return warp_sum(sum);
}

template <class T>
DEVICE void divide(const T* weights, const T* sums, T* to, int size) {
  ROLLED
  for (int at = 0; at < size; at += 32) {
    const Group g = group(at, size);
    store(to, g.j, load(weights, g.j, g.in, Lanes<T>(T(0))) / load(sums, g.j, g.in, Lanes<T>(T(1))), g.in);
  }
}

struct Scaling {
  int used;
  double error;
};

// Alternate v = b / K' u and u = a / K v until the columns are right; costs and weights have been staged. With `closes`,
// pairs at infinite costs are not used.
template <class T>
DEVICE Scaling scale_plain(PlainMemory<T>& memory, int n, int m, T offset, T inverse, double tol, i64 max_iter,
                           bool closes) {
  for (int i = 0; i < n; i++) {
    ROLLED
    for (int at = 0; at < m; at += 32) {
      const Group g = group(at, m);
      T* const row = memory.kernel + i * memory.stride;
      Lanes<T> cost = load(row, g.j, g.in, Lanes<T>(offset));
      if (closes) {
        const Lanes<bool> open = cost != Lanes<T>(T(infinity()));
        const Lanes<T> density = exponential((offset - choose(open, cost, Lanes<T>(offset))) * inverse);
        store(row, g.j, choose(open, density, Lanes<T>(T(0))), g.in);
        continue;
      }
      store(row, g.j, exponential((offset - cost) * inverse), g.in);
    }
  }
  sync_lanes();
  multiply(memory.kernel, 1, memory.stride, memory.a, memory.q, m, n);
  sync_lanes();
  Scaling found = {0, 0.0};
  for (;;) {
    divide(memory.b, memory.q, memory.v, m);
    sync_lanes();
    multiply(memory.kernel, memory.stride, 1, memory.v, memory.p, n, m);
    sync_lanes();
    divide(memory.a, memory.p, memory.u, n);
    sync_lanes();
    multiply(memory.kernel, 1, memory.stride, memory.u, memory.sums, m, n);
    sync_lanes();
    Lanes<T> worst = T(0);
    ROLLED
    for (int at = 0; at < m; at += 32) {
      const Group g = group(at, m);
      const Lanes<T> zero = T(0), sums = load(memory.sums, g.j, g.in, zero);
      worst = larger(worst, magnitude(load(memory.v, g.j, g.in, zero) * sums - load(memory.b, g.j, g.in, zero)));
    }
    found.error = double(warp_largest(worst));
    found.used++;
    if (found.error <= tol || found.used >= max_iter) return found;
    T* const before = memory.q;
    memory.q = memory.sums;
    memory.sums = before;
  }
}

// Write the plan diag(u) K diag(v).
template <class T>
DEVICE void write_scaled(const PlainMemory<T>& memory, T* plan, int n, int m) {
  for (int i = 0; i < n; i++) {
    const T u = load_one(memory.u, i);
    ROLLED
    for (int at = 0; at < m; at += 32) {
      const Group g = group(at, m);
      const Lanes<T> zero = T(0), entry = load(memory.kernel, g.j + i * memory.stride, g.in, zero) * u;
      store(plan, g.j + i * m, entry * load(memory.v, g.j, g.in, zero), g.in);
    }
  }
}

// Write the plan a_i b_j exp(phi_i + psi_j - (cost_ij - offset) / reg).
template <class T>
DEVICE void write_plan(Entries<T> cost, double offset, const Side& a, const Side& b, double reg, T* plan) {
  const double inverse = 1.0 / reg;
  for (int i = 0; i < a.size; i++) {
    const double weight = load_one(a.weights, i), phi = load_one(a.potential, i);
    ROLLED
    for (int at = 0; at < b.size; at += 32) {
      const Group g = group(at, b.size);
      const Lanes<double> exponent = load_some(b.potential, g) + phi - (cost(i, g) - offset) * inverse;
      // Between two nodes without weight it may be anything; zero times infinity is NaN.
      const Lanes<double> density = exponential(choose(exponent > 700.0, Lanes<double>(700.0), exponent));
      store(plan, g.j + i * b.size, convert<T>(density * weight * load_some(b.weights, g)), g.in);
    }
  }
}

// Whether weights and costs are what ``check_values`` wants.
DEVICE bool is_valid(const EntropicProblems& s, const Total& a, const Total& b, bool hard, bool finite) {
  const double least = smaller(a.sum, b.sum), most = larger(a.sum, b.sum);
  return finite && a.sound && b.sound && least >= LEAST_TOTAL && most <= LARGEST_TOTAL &&
         !(hard && most - least > s.totals_rtol * most);
}

// Solve problem k.
template <class T>
DEVICE void solve_entropic(const EntropicProblems& s, int k, char* room) {
  const int n = s.n, m = s.m;
  const bool hard = s.rho_a == infinity() && s.rho_b == infinity();
  const Entries<T> cost = {static_cast<const T*>(s.cost) + k * s.cost_problem, s.cost_row, s.cost_col};
  double *unit_a = s.unit_a + i64(k) * n, *unit_b = s.unit_b + i64(k) * m;
  const bool closes = s.column_part != nullptr;
  const int* row_part = closes ? s.row_part + i64(k) * n : nullptr;
  const int* column_part = closes ? s.column_part + i64(k) * m : nullptr;
  const Side rows = {n, unit_a, s.phi + i64(k) * n, s.rho_a, row_part};
  const Side columns = {m, unit_b, s.psi + i64(k) * m, s.rho_b, column_part};
  T* const plan = static_cast<T*>(s.plan) + i64(k) * n * m;

  const double* given_a = s.a ? s.a + k * s.a_problem : nullptr;
  const double* given_b = s.b ? s.b + k * s.b_problem : nullptr;
  Total a = {1.0, true}, b = {1.0, true};
  if (given_a) a = total_of(given_a, s.a_step, n);
  if (given_b) b = total_of(given_b, s.b_step, m);
  if (!given_a) a = b;
  if (!given_b) b = a;
  const double scale = hard ? a.sum : square_root(a.sum) * square_root(b.sum);
  write_unit(given_a, s.a_step, a.sum, scale, unit_a, n);
  write_unit(given_b, s.b_step, b.sum, hard ? b.sum : scale, unit_b, m);

  PlainMemory<T> memory(room, n, m);
  Entries<T> near = cost;
  if (s.plain > 0) {
    stage(cost, n, m, memory.kernel, memory.stride);
    near = {memory.kernel, memory.stride, 1};
  }
  sync_lanes();
  const Survey survey = look_over(near, n, m, closes);
  const bool finite = is_finite(survey.sum);
  const bool valid = s.totals_rtol == infinity() || is_valid(s, a, b, hard, finite);

  const T centre = hard ? T(survey.sum / (double(n) * double(m))) : T(0);
  const double offset = double(centre);
  const double range = larger(survey.high - offset, offset - survey.low);
  Outcome found = {MAX_ITER, 0, 0.0};
  bool near_the_end = false, solved = false;
  sync_lanes();
  if (valid && finite && hard && s.plain > 0 && range * s.inverse <= s.reach) {
    narrow(unit_a, memory.a, n);
    narrow(unit_b, memory.b, m);
    const Scaling scaling = scale_plain(memory, n, m, centre, T(s.inverse), s.tol, s.plain, closes);
    write_potentials(memory.p, rows.potential, n);
    write_potentials(memory.q, columns.potential, m);
    sync_lanes();
    // The largest of several numbers may pass over NaN, their sum does not.
    const double gain = weighted_sum(unit_a, rows.potential, n) + weighted_sum(unit_b, columns.potential, m);
    near_the_end = is_finite(gain) && is_finite(scaling.error);
    solved = near_the_end && scaling.error <= s.tol;
    if (near_the_end) found = {solved ? OPTIMAL : MAX_ITER, scaling.used, scaling.error};
  }
  if (!valid) {
    found = {INVALID, 0, not_a_number()};
  } else if (near_the_end && (solved || found.used >= s.max_iter)) {
    write_scaled(memory, plan, n, m);
  } else {
    sync_lanes();
    const bool turn = m > n;
    const Entries<T> turned = {cost.at, turn ? cost.col : cost.row, turn ? cost.row : cost.col};
    const i64 used = found.used;
    found = newton(room, turned, offset, survey.high - survey.low, turn ? columns : rows, turn ? rows : columns, s.reg,
                   s.tol, s.max_iter - used, near_the_end);
    found.used += used;
    write_plan(cost, offset, rows, columns, s.reg, plan);
  }

  double value = not_a_number();
  if (valid)
    value = s.reg * (weighted_sum(unit_a, rows.potential, n) + weighted_sum(unit_b, columns.potential, m)) + offset;
  store_one(s.mass, k, scale);
  store_one(s.value, k, scale * value);
  store_one(s.offset, k, offset);
  store_one(s.error, k, found.error);
  store_one(s.n_iter, k, found.used);
  store_one(s.status, k, static_cast<signed char>(found.status));
  const bool fits = scale >= s.least && scale <= s.most;
  const int bits = (found.status == OPTIMAL ? 0 : 1 << found.status) | (fits ? 0 : 1 << MISFIT);
  if (bits) raise_flag(s.flag, bits);
}

#define ENTROPIC(NAME, GIVEN) \
  KERNEL(NAME, EntropicProblems, entropic_bytes<GIVEN>(problems), (solve_entropic<GIVEN>(problems, k, memory)))
