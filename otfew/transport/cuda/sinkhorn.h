// Entropic transport by one warp a problem: Sinkhorn's scalings in the plain domain, and what they leave to Newton.
//
// The methods are those of otfew/transport/entropic/plain.py and newton.py. A problem is read once, stays in the warp's
// memory until it is solved, and knows nothing of the others: an answer is the same, bit for bit, whatever its
// batch-mates and wherever it stands.
#pragma once
#include "newton.h"

constexpr double LEAST_TOTAL_OF_WEIGHTS = 1e-290, LARGEST_TOTAL_OF_WEIGHTS = 1e290;

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

struct Total {
  double sum;
  bool sound;  // no weight is negative or NaN
};

DEVICE Total total_of(const double* weights, i64 step, int size) {
  const Lanes<int> lane = lane_index();
  Lanes<double> sum = 0.0;
  Lanes<bool> sound = true;
  for (int at = 0; at < size; at += 32) {
    const Lanes<bool> in = lane + at < size;
    const Lanes<double> w = load(weights, convert<i64>(smaller(lane + at, Lanes<int>(size - 1))) * step);
    sum = sum + choose(in, w, Lanes<double>(0.0));
    sound = sound && w >= 0.0;
  }
  return {warp_sum(sum), !ballot(!sound)};
}

// Write weights over `divisor`; without any, equal ones of the sum `total`.
DEVICE void write_unit(const double* weights, i64 step, double total, double divisor, double* unit, int size) {
  const Lanes<int> lane = lane_index();
  for (int at = 0; at < size; at += 32) {
    const Lanes<int> i = smaller(lane + at, Lanes<int>(size - 1));
    Lanes<double> w = total / size;
    if (weights) w = load(weights, convert<i64>(i) * step);
    store(unit, i, w / divisor, lane + at < size);
  }
}

// y_i = sum_j matrix[i * out_step + j * in_step] x_j.
template <class T>
DEVICE void multiply(const T* matrix, int out_step, int in_step, const T* x, T* y, int outs, int ins) {
  const Lanes<int> lane = lane_index();
  // Lanes hold the sums, or, where there are few of these, the terms; counted in instructions.
  if ((outs + 31) / 32 * ins * 4 <= outs * ((ins + 31) / 32 * 5 + 12)) {
    for (int at = 0; at < outs; at += 32) {
      const Lanes<int> place = smaller(lane + at, Lanes<int>(outs - 1)) * out_step;
      Lanes<T> sum = T(0);
      for (int j = 0; j < ins; j++) sum = sum + load(matrix, place + j * in_step) * load_one(x, j);
      store(y, lane + at, sum, lane + at < outs);
    }
  } else {
    for (int i = 0; i < outs; i++) {
      Lanes<T> sum = T(0);
      for (int at = 0; at < ins; at += 32) {
        const Lanes<int> j = smaller(lane + at, Lanes<int>(ins - 1));
        const Lanes<T> term = load(matrix, j * in_step + i * out_step) * load(x, j);
        sum = sum + choose(lane + at < ins, term, Lanes<T>(T(0)));
      }
      store(y, Lanes<int>(i), Lanes<T>(warp_sum(sum)), lane == 0);
    }
  }
}

struct Survey {
  double sum, low, high;
};

template <class T>
DEVICE Survey look_over(Entries<T> cost, int n, int m) {
  const Lanes<int> lane = lane_index();
  Lanes<double> sum = 0.0, low = infinity(), high = -infinity();
  for (int i = 0; i < n; i++) {
    for (int at = 0; at < m; at += 32) {
      const Lanes<double> x = cost(i, smaller(lane + at, Lanes<int>(m - 1)));
      sum = sum + choose(lane + at < m, x, Lanes<double>(0.0));
      low = smaller(x, low);
      high = larger(x, high);
    }
  }
  return {warp_sum(sum), warp_smallest(low), warp_largest(high)};
}

// Copy costs into the warp's memory, along whichever of rows and columns lies closer together.
template <class T>
DEVICE void stage(Entries<T> cost, int n, int m, T* to, int stride) {
  const Lanes<int> lane = lane_index();
  const bool down = magnitude(double(cost.row)) < magnitude(double(cost.col));
  const int outer = down ? m : n, inner = down ? n : m;
  const i64 step = down ? cost.col : cost.row, pace = down ? cost.row : cost.col;
  const int to_step = down ? 1 : stride, to_pace = down ? stride : 1;
  for (int i = 0; i < outer; i++) {
    for (int at = 0; at < inner; at += 32) {
      const Lanes<int> j = smaller(lane + at, Lanes<int>(inner - 1));
      store(to, j * to_pace + i * to_step, load(cost.at, convert<i64>(j) * pace + i * step), lane + at < inner);
    }
  }
}

// Write -log of sums as potentials.
template <class T>
DEVICE void write_potentials(const T* sums, double* potential, int size) {
  const Lanes<int> lane = lane_index();
  for (int at = 0; at < size; at += 32) {
    const Lanes<int> i = smaller(lane + at, Lanes<int>(size - 1));
    store(potential, i, 0.0 - logarithm(convert<double>(load(sums, i))), lane + at < size);
  }
}

DEVICE double weighted_sum(const double* weights, const double* potential, int size) {
  const Lanes<int> lane = lane_index();
  Lanes<double> sum = 0.0;
  for (int at = 0; at < size; at += 32) {
    const Lanes<int> i = smaller(lane + at, Lanes<int>(size - 1));
    sum = sum + choose(lane + at < size, load(weights, i) * load(potential, i), Lanes<double>(0.0));
  }
  return warp_sum(sum);
}

struct Scaling {
  int used;
  double error;
};

// Alternate v = b / K' u and u = a / K v until the columns are right; the costs have been staged.
template <class T>
DEVICE Scaling scale_plain(const PlainMemory<T>& memory, int n, int m, T offset, T inverse, double tol, i64 max_iter) {
  const Lanes<int> lane = lane_index();
  for (int i = 0; i < n; i++) {
    for (int at = 0; at < m; at += 32) {
      const Lanes<int> place = smaller(lane + at, Lanes<int>(m - 1)) + i * memory.stride;
      const Lanes<T> score = (offset - load(memory.kernel, place)) * inverse;
      store(memory.kernel, place, exponential(score), lane + at < m);
    }
  }
  for (int at = 0; at < n; at += 32) {
    const Lanes<int> i = smaller(lane + at, Lanes<int>(n - 1));
    store(memory.u, i, load(memory.a, i), lane + at < n);
  }
  sync_lanes();
  T *q = memory.q, *sums = memory.sums;
  multiply(memory.kernel, 1, memory.stride, memory.u, q, m, n);
  sync_lanes();
  Scaling found = {0, 0.0};
  for (;;) {
    for (int at = 0; at < m; at += 32) {
      const Lanes<int> j = smaller(lane + at, Lanes<int>(m - 1));
      store(memory.v, j, load(memory.b, j) / load(q, j), lane + at < m);
    }
    sync_lanes();
    multiply(memory.kernel, memory.stride, 1, memory.v, memory.p, n, m);
    sync_lanes();
    for (int at = 0; at < n; at += 32) {
      const Lanes<int> i = smaller(lane + at, Lanes<int>(n - 1));
      store(memory.u, i, load(memory.a, i) / load(memory.p, i), lane + at < n);
    }
    sync_lanes();
    multiply(memory.kernel, 1, memory.stride, memory.u, sums, m, n);
    sync_lanes();
    Lanes<T> worst = T(0);
    for (int at = 0; at < m; at += 32) {
      const Lanes<int> j = smaller(lane + at, Lanes<int>(m - 1));
      worst = larger(worst, magnitude(load(memory.v, j) * load(sums, j) - load(memory.b, j)));
    }
    found.error = double(warp_largest(worst));
    found.used++;
    if (found.error <= tol || found.used >= max_iter) break;
    T* const before = q;
    q = sums;
    sums = before;
  }
  if (q != memory.q) {
    for (int at = 0; at < m; at += 32) {
      const Lanes<int> j = smaller(lane + at, Lanes<int>(m - 1));
      store(memory.q, j, load(q, j), lane + at < m);
    }
    sync_lanes();
  }
  return found;
}

// Solve problem k.
template <class T>
DEVICE void solve_entropic(const SinkhornProblems& s, int k, char* room) {
  const int n = s.n, m = s.m;
  const Lanes<int> lane = lane_index();
  const bool hard = s.rho_a == infinity() && s.rho_b == infinity();
  const Entries<T> cost = {static_cast<const T*>(s.cost) + k * s.cost_problem, s.cost_row, s.cost_col};
  double *unit_a = s.unit_a + i64(k) * n, *unit_b = s.unit_b + i64(k) * m;
  double *phi = s.phi + i64(k) * n, *psi = s.psi + i64(k) * m;

  const double* given_a = s.a ? s.a + k * s.a_problem : nullptr;
  const double* given_b = s.b ? s.b + k * s.b_problem : nullptr;
  Total a = {1.0, true}, b = {1.0, true};
  if (given_a) a = total_of(given_a, s.a_step, n);
  if (given_b) b = total_of(given_b, s.b_step, m);
  if (!given_a) a = b;
  if (!given_b) b = a;
  const double scale = hard ? a.sum : square_root(a.sum) * square_root(b.sum);
  write_unit(given_a, s.a_step, a.sum, hard ? a.sum : scale, unit_a, n);
  write_unit(given_b, s.b_step, b.sum, hard ? b.sum : scale, unit_b, m);
  sync_lanes();

  const PlainMemory<T> memory(room, n, m);
  Survey survey;
  if (s.plain > 0) {
    stage(cost, n, m, memory.kernel, memory.stride);
    sync_lanes();
    survey = look_over(Entries<T>{memory.kernel, memory.stride, 1}, n, m);
  } else {
    survey = look_over(cost, n, m);
  }
  const bool finite = is_finite(survey.sum);
  bool valid = true;
  if (s.totals_rtol != infinity()) {
    const double least = smaller(a.sum, b.sum), most = larger(a.sum, b.sum);
    valid = finite && a.sound && b.sound && least >= LEAST_TOTAL_OF_WEIGHTS && most <= LARGEST_TOTAL_OF_WEIGHTS &&
            !(hard && most - least > s.totals_rtol * most);
  }

  const T centre = hard ? T(survey.sum / (double(n) * double(m))) : T(0);
  const double offset = double(centre);
  const double range = larger(survey.high - offset, offset - survey.low);
  Outcome found = {OUT_OF_ITERATIONS, 0, 0.0};
  bool plain = false, solved = false;
  if (valid && hard && s.plain > 0 && finite && range * s.inverse <= s.reach) {
    for (int at = 0; at < n; at += 32) {
      const Lanes<int> i = smaller(lane + at, Lanes<int>(n - 1));
      store(memory.a, i, convert<T>(load(unit_a, i)), lane + at < n);
    }
    for (int at = 0; at < m; at += 32) {
      const Lanes<int> j = smaller(lane + at, Lanes<int>(m - 1));
      store(memory.b, j, convert<T>(load(unit_b, j)), lane + at < m);
    }
    sync_lanes();
    const Scaling scaling = scale_plain(memory, n, m, centre, T(s.inverse), s.tol, s.plain);
    write_potentials(memory.p, phi, n);
    write_potentials(memory.q, psi, m);
    sync_lanes();
    plain = is_finite(weighted_sum(unit_a, phi, n) + weighted_sum(unit_b, psi, m)) && is_finite(scaling.error);
    if (plain) {
      solved = scaling.error <= s.tol;
      found.status = solved ? OPTIMAL_ENTROPIC : OUT_OF_ITERATIONS;
      found.used = scaling.used;
      found.error = scaling.error;
    }
  }
  T* plan = static_cast<T*>(s.plan) + i64(k) * n * m;
  if (plain && (solved || found.used >= s.max_iter)) {
    for (int i = 0; i < n; i++) {
      const T u = load_one(memory.u, i);
      for (int at = 0; at < m; at += 32) {
        const Lanes<int> j = smaller(lane + at, Lanes<int>(m - 1));
        const Lanes<T> entry = load(memory.kernel, j + i * memory.stride) * u * load(memory.v, j);
        store(plan, j + i * m, entry, lane + at < m);
      }
    }
  } else if (valid) {
    sync_lanes();
    const Side rows = {n, unit_a, phi, s.rho_a}, columns = {m, unit_b, psi, s.rho_b};
    const bool turn = m > n;
    const Entries<T> turned = {cost.at, turn ? cost.col : cost.row, turn ? cost.row : cost.col};
    const i64 used = found.used;
    found = newton(room, turned, offset, survey.high - survey.low, turn ? columns : rows, turn ? rows : columns, s.reg,
                   s.tol, s.max_iter - used, plain);
    found.used += used;
    for (int i = 0; i < n; i++) {
      const double weight = load_one(unit_a, i), height = load_one(phi, i);
      for (int at = 0; at < m; at += 32) {
        const Lanes<int> j = smaller(lane + at, Lanes<int>(m - 1));
        // Between two nodes without weight the exponent may be anything; zero times infinity is NaN.
        const Lanes<double> exponent = load(psi, j) + height - (cost(i, j) - offset) * (1.0 / s.reg);
        const Lanes<double> density = exponential(choose(exponent > 700.0, Lanes<double>(700.0), exponent));
        store(plan, j + i * m, convert<T>(density * weight * load(unit_b, j)), lane + at < m);
      }
    }
  } else {
    found.status = INVALID_ENTROPIC;
  }

  const double gain = s.reg * (weighted_sum(unit_a, phi, n) + weighted_sum(unit_b, psi, m)) + offset;
  const Lanes<bool> one = lane == 0;
  const Lanes<int> here = k;
  store(s.mass, here, Lanes<double>(scale), one);
  store(s.value, here, Lanes<double>(scale * gain), one);
  store(s.offset, here, Lanes<double>(offset), one);
  store(s.error, here, Lanes<double>(found.error), one);
  store(s.n_iter, here, Lanes<i64>(found.used), one);
  store(s.status, here, convert<signed char>(Lanes<int>(found.status)), one);
  const bool fits = scale >= s.least && scale <= s.most;
  const int bits = (found.status == OPTIMAL_ENTROPIC ? 0 : 1 << found.status) | (fits ? 0 : 1 << MISFIT);
  if (bits) raise_flag(s.flag, bits);
}
