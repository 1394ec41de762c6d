// Weights: read, checked, and turned into whole units.
#pragma once
#include "problem.h"

constexpr double LEAST_TOTAL = 1e-290;  // otfew.transport.problem.TOTALS_RANGE
constexpr double LARGEST_TOTAL = 1e290;

template <int S>
struct Weights {
  Lanes<double> w[S];  // zero beyond the last node
  double total;        // NaN where a weight is negative, NaN or INFINITE, or the total is out of range
};

// `at` null: `share` for each node.
template <int S>
DEVICE Weights<S> read_weights(const double* at, i64 step, int count, double share) {
  Weights<S> weights;
  Lanes<double> sum = 0.0;
  Lanes<bool> sound = true;
  UNROLL
  for (int k = 0; k < S; k++) {
    const Lanes<int> x = lane_index() + 32 * k;
    const Lanes<bool> is = x < count;
    Lanes<double> w = share;
    if (at) w = load(at, convert<i64>(choose(is, x, Lanes<int>(0))) * step);
    weights.w[k] = choose(is, w, Lanes<double>(0.0));
    sound = sound && weights.w[k] >= 0.0;
    sum = sum + weights.w[k];
  }
  weights.total = warp_sum(sum);
  const bool good = !ballot(!sound) && weights.total >= LEAST_TOTAL && weights.total <= LARGEST_TOTAL;
  if (!good) weights.total = NOT_A_NUMBER;
  return weights;
}

// Round weights to units of total / 2^52; what is missing to the whole goes to the largest.
template <int S>
DEVICE void units_of(const Weights<S>& weights, Lanes<i64>* units) {
  Lanes<i64> sum = i64(0);
  Lanes<float> most = -1.f;
  Lanes<int> slot = 0;
  UNROLL
  for (int k = 0; k < S; k++) {
    units[k] = nearest_i64(weights.w[k] / weights.total * double(UNITS));
    sum = sum + units[k];
    const Lanes<float> share = convert<float>(weights.w[k] / weights.total);
    const Lanes<bool> more = share > most;
    most = choose(more, share, most);
    slot = choose(more, Lanes<int>(k), slot);
  }
  const i64 rest = UNITS - warp_sum(sum);
  const u32 top = warp_max(bits_of(most));
  const int lane = lowest(ballot(bits_of(most) == top));
  const int at = from_lane(slot, lane);
  UNROLL
  for (int k = 0; k < S; k++)
    units[k] = units[k] + choose(lane_index() == lane && Lanes<bool>(k == at), Lanes<i64>(rest), Lanes<i64>(i64(0)));
}
