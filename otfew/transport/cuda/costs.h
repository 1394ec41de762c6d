// Costs less row means and column minima: as whole numbers in the warp's memory, and in float64 as they are read.
#pragma once
#include "problem.h"

struct Reduction {
  double spread;          // largest cost that is left
  int whole;              // the same in whole numbers, 0 where there is none to tell them apart by
  bool finite;            // whether all costs are
};

// Factor, a power of two, that brings half the costs' differences to about 1, and whether all costs are finite.
// Only for costs that are extreme, or equal: a second look at all of them.
template <int RS, int CS, class Given>
DEVICE double extreme_factor(const Costs<Given>& costs, const u32* rows, const Lanes<bool>* held, double origin,
                             bool& finite) {
  Lanes<double> most = 0.0;
  Lanes<bool> bad = false;
  UNROLL
  for (int c = 0; c < CS; c++) {
    const Lanes<i64> column = costs.column(lane_index() + 32 * c);
    for (int i = 0; i < costs.n; i++) {
      const Lanes<double> x = convert<double>(load(costs.at, column + i * costs.row));
      bad = bad || !(x - x == 0.0);
      if (!bit_at<RS>(rows, i)) continue;
      most = choose(held[c], larger(most, magnitude(x * 0.5 - origin * 0.5)), most);
    }
  }
  finite = !ballot(bad);
  // Bits of a power of two are its exponent alone.
  const int exponent = smaller((int)(bits_of(warp_largest(most)) >> 52), 2044);
  return double_of_bits((u64)(2045 - exponent) << 52);
}

// Write costs less `origin`, or half that times a factor, as float32 into the warp's memory. Returns the sum of their
// magnitudes of the lane that has most; without a factor it is not finite where any cost is not.
template <int RS, int CS, bool FACTOR, class Given>
DEVICE float stage_costs(const Costs<Given>& costs, const Memory<RS, CS>& memory, const u32* rows,
                         const Lanes<bool>* held, Given origin, double factor) {
  float* staged = reinterpret_cast<float*>(memory.cost);
  Lanes<float> sum = 0.f;
  UNROLL
  for (int c = 0; c < CS; c++) {
    const Lanes<int> j = lane_index() + 32 * c;
    Lanes<i64> at = costs.column(j);
    for (int i = 0; i < costs.n; i++) {
      const Lanes<Given> x = load(costs.at, at);
      at = at + costs.row;
      Lanes<float> y = 0.f;
      if (!bit_at<RS>(rows, i)) {
        sum = sum + convert<float>(x - x);
      } else {
        if (FACTOR) {
          y = convert<float>((convert<double>(x) * 0.5 - double(origin) * 0.5) * factor);
          y = choose(held[c], y, Lanes<float>(0.f));
        } else {
          y = convert<float>(x - origin);
        }
        sum = sum + magnitude(y);
      }
      store(staged, j + i * Memory<RS, CS>::S::STRIDE, y);
    }
  }
  return float_of_bits(warp_max(bits_of(sum)));
}

// Take the means over the columns with mass from the rows: rows become comparable, which saves a fifth of the pivots.
template <int RS, int CS>
DEVICE void row_means(const Memory<RS, CS>& memory, int n, int m, const u32* columns, float* means) {
  const float* staged = reinterpret_cast<const float*>(memory.cost);
  const float count = float(count_nodes<CS>(columns));
  UNROLL
  for (int r = 0; r < RS; r++) {
    const Lanes<int> i = lane_index() + 32 * r;
    const Lanes<int> row = smaller(i, Lanes<int>(n - 1)) * Memory<RS, CS>::S::STRIDE;
    Lanes<float> sum = 0.f;
    for (int j = 0; j < m; j++)
      if (bit_at<CS>(columns, j)) sum = sum + load(staged, row + j);
    store(means, i, sum / count);
  }
  sync_lanes();
}

// Find each column's least cost after that, and the largest that is left in columns with mass.
template <int RS, int CS>
DEVICE float column_lows(const Memory<RS, CS>& memory, int n, const u32* rows, const Lanes<bool>* held,
                         const float* means, Lanes<float>* low) {
  const float* staged = reinterpret_cast<const float*>(memory.cost);
  Lanes<float> far = 0.f;
  UNROLL
  for (int c = 0; c < CS; c++) {
    low[c] = float_of_bits(0x7f800000u);
    Lanes<float> high = -float_of_bits(0x7f800000u);
    for (int i = 0; i < n; i++) {
      if (!bit_at<RS>(rows, i)) continue;
      const Lanes<int> at = lane_index() + (32 * c + i * Memory<RS, CS>::S::STRIDE);
      const Lanes<float> x = load(staged, at) - load_one(means, i);
      low[c] = smaller(low[c], x);
      high = larger(high, x);
    }
    far = choose(held[c], larger(far, high - low[c]), far);
  }
  return warp_largest(far);
}

// Turn the staged costs of a slot of columns into whole numbers, negative and times 32, as pricing reads them; zero
// where the scale is, as in columns without mass.
template <int RS, int CS>
DEVICE void whole_costs(const Memory<RS, CS>& memory, int n, int c, const u32* rows, const float* means,
                        Lanes<float> low, Lanes<float> scale) {
  const float* staged = reinterpret_cast<const float*>(memory.cost);
  for (int i = 0; i < (n + 3) / 4 * 4; i++) {
    const Lanes<int> at = lane_index() + (32 * c + i * Memory<RS, CS>::S::STRIDE);
    Lanes<int> whole = 0;
    if (i < n && bit_at<RS>(rows, i))
      whole = nearest_int((load(staged, at) - load_one(means, i) - low) * scale) * -32;
    store(memory.cost, at, whole);
  }
}

// `rows`, `columns`: bits of the nodes with mass; `held`: the same of columns, by lane.
template <int RS, int CS, class Given>
DEVICE Reduction reduce_costs(const Costs<Given>& costs, const Memory<RS, CS>& memory, const u32* rows,
                                  const u32* columns, const Lanes<bool>* held) {
  Reduction reduction;
  const Given origin = load_one(costs.at, first_of<RS>(rows) * costs.row + first_of<CS>(columns) * costs.col);
  double factor = 1.0;
  reduction.finite = true;
  float reach = stage_costs<RS, CS, false>(costs, memory, rows, held, origin, factor);
  if (!(reach >= 1e-30f && reach <= 1e30f)) {
    factor = extreme_factor<RS, CS>(costs, rows, held, double(origin), reduction.finite);
    reach = stage_costs<RS, CS, true>(costs, memory, rows, held, origin, factor);
    factor *= 0.5;
  }
  sync_lanes();
  float* means = reinterpret_cast<float*>(memory.scratch);
  row_means<RS, CS>(memory, costs.n, costs.m, columns, means);
  Lanes<float> low[CS];
  const float spread = column_lows<RS, CS>(memory, costs.n, rows, held, means, low);
  // float32 sees no more than this of costs that the rows' and columns' own levels make large.
  const float seen = larger(spread, reach * 1e-7f);
  reduction.spread = double(seen) / factor;
  // What a path of all nodes sums up to stays within reach.
  const int nodes = count_nodes<RS>(rows) + count_nodes<CS>(columns);
  reduction.whole = seen > 0.f ? smaller(1 << 20, Memory<RS, CS>::S::REACH / nodes) : 0;
  const float scale = seen > 0.f ? float(reduction.whole) / seen : 0.f;
  UNROLL
  for (int c = 0; c < CS; c++) {
    const Lanes<float> own = choose(held[c], Lanes<float>(scale), Lanes<float>(0.f));
    whole_costs<RS, CS>(memory, costs.n, c, rows, means, low[c], own);
    store(memory.low, lane_index() + 32 * c, convert<double>(low[c]) / factor);
  }
  UNROLL
  for (int r = 0; r < RS; r++) {
    const Lanes<int> i = lane_index() + 32 * r;
    store(memory.mean, i, double(origin) + convert<double>(load(means, i)) / factor);
  }
  sync_lanes();
  return reduction;
}
