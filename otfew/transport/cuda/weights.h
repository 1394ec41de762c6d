// Weights: read, checked, and turned into whole units.
#pragma once
#include "problem.h"

constexpr double LEAST_TOTAL = 1e-290;  // otfew.transport.problem.TOTALS_RANGE
constexpr double LARGEST_TOTAL = 1e290;

// Where a side's weights lie; `at` null: `share` for each node.
struct Side {
  const double* at;
  i64 step;
  int count;
  double share;
};

template <int S>
struct Weights {
  Lanes<double> w[S];  // zero beyond the last node
  double total;
};

// Weights again, once their total is known: they are not kept in registers meanwhile.
template <int S>
DEVICE Weights<S> read_weights(const Side& side, double total) {
  Weights<S> weights;
  weights.total = total;
  UNROLL
  for (int k = 0; k < S; k++) {
    const Lanes<int> x = lane_index() + 32 * k;
    const Lanes<bool> is = x < side.count;
    Lanes<double> w = side.share;
    if (side.at) w = load(side.at, convert<i64>(choose(is, x, Lanes<int>(0))) * side.step);
    weights.w[k] = choose(is, w, Lanes<double>(0.0));
  }
  return weights;
}

// The total is NaN where a weight is negative, NaN or infinite, or the total is out of range.
template <int S>
DEVICE Weights<S> checked_weights(const Side& side) {
  Weights<S> weights = read_weights<S>(side, 0.0);
  Lanes<double> sum = 0.0;
  Lanes<bool> sound = true;
  UNROLL
  for (int k = 0; k < S; k++) {
    sound = sound && weights.w[k] >= 0.0;
    sum = sum + weights.w[k];
  }
  weights.total = warp_sum(sum);
  const bool good = !ballot(!sound) && weights.total >= LEAST_TOTAL && weights.total <= LARGEST_TOTAL;
  if (!good) weights.total = NOT_A_NUMBER;
  return weights;
}

// Whether all weights that are not zero are the same, and how many there are.
template <int S>
DEVICE bool all_equal(const Weights<S>& weights, int& count) {
  Lanes<double> most = 0.0;
  UNROLL
  for (int k = 0; k < S; k++) most = larger(most, weights.w[k]);
  const double each = warp_largest(most);
  u32 others = 0;
  count = 0;
  UNROLL
  for (int k = 0; k < S; k++) {
    count += count_bits(ballot(weights.w[k] == each));
    others |= ballot(weights.w[k] != 0.0 && weights.w[k] != each);
  }
  return !others;
}

// Units of the total mass: 2^52, or a little less, so that it divides by all nodes of both sides where weights are
// uniform. Rounded, they would leave trifles that flow where nothing should.
template <int RS, int CS>
DEVICE i64 total_units(const Weights<RS>& a, const Weights<CS>& b, bool& uniform) {
  int rows, columns;
  uniform = all_equal(a, rows) && all_equal(b, columns);
  if (!uniform) return UNITS;
  const i64 whole = (i64)rows * columns;
  return UNITS / whole * whole;
}

// Round weights to units; what is missing to the whole goes to the largest.
template <int S>
DEVICE void units_of(const Weights<S>& weights, i64 total, bool uniform, Lanes<i64>* units) {
  Lanes<i64> sum = i64(0);
  Lanes<float> most = -1.f;
  Lanes<int> slot = 0;
  int count = 0;
  UNROLL
  for (int k = 0; k < S; k++) count += count_bits(ballot(weights.w[k] > 0.0));
  UNROLL
  for (int k = 0; k < S; k++) {
    const Lanes<double> share = weights.w[k] / weights.total;
    const Lanes<i64> each = choose(share > 0.0, Lanes<i64>(total / count), Lanes<i64>(i64(0)));
    units[k] = uniform ? each : nearest_i64(share * double(total));
    sum = sum + units[k];
    const Lanes<float> size = convert<float>(share);
    const Lanes<bool> more = size > most;
    most = choose(more, size, most);
    slot = choose(more, Lanes<int>(k), slot);
  }
  const i64 rest = total - warp_sum(sum);
  if (rest == 0) return;
  const u32 top = warp_max(bits_of(most));
  const int lane = lowest(ballot(bits_of(most) == top));
  const int at = from_lane(slot, lane);
  UNROLL
  for (int k = 0; k < S; k++)
    units[k] = units[k] + choose(lane_index() == lane && Lanes<bool>(k == at), Lanes<i64>(rest), Lanes<i64>(i64(0)));
}
