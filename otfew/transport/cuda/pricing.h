// Pricing: the arc whose cost is furthest below the potentials of its ends. Lanes are columns.
#pragma once
#include "costs.h"

// Part of the largest excess that is good enough, as a divisor: fewer looks at all arcs against more pivots.
constexpr int PART = 3;

struct Best {
  Lanes<int> key;    // 32 times the excess, plus the row modulo 32
  Lanes<int> first;  // first row of its block of 32
};

// For each column the row with the largest potential less cost.
template <int RS, int CS>
DEVICE void best_rows(const Memory<RS, CS>& memory, int n, Best* best) {
  constexpr int STRIDE = Sizes<RS, CS>::STRIDE;
  Lanes<int> key[CS];
  UNROLL
  for (int c = 0; c < CS; c++) best[c] = {Lanes<int>(LOWEST), Lanes<int>(0)};
  for (int first = 0; first < n; first += 32) {
    UNROLL
    for (int c = 0; c < CS; c++) key[c] = LOWEST;
    const int last = RS > 1 ? smaller(n, first + 32) : n;
    for (int i = first; i < last; i += 4) {
      const Four tag = load_four(memory.tag + i);
      UNROLL
      for (int c = 0; c < CS; c++) {
        const int* cost = memory.cost + (i * STRIDE + 32 * c);
        key[c] = larger(key[c], load(cost, lane_index()) + tag.x);
        key[c] = larger(key[c], load(cost + STRIDE, lane_index()) + tag.y);
        key[c] = larger(key[c], load(cost + 2 * STRIDE, lane_index()) + tag.z);
        key[c] = larger(key[c], load(cost + 3 * STRIDE, lane_index()) + tag.w);
      }
    }
    UNROLL
    for (int c = 0; c < CS; c++) {
      if (RS > 1) best[c].first = choose(key[c] > best[c].key, Lanes<int>(first), best[c].first);
      best[c].key = RS > 1 ? larger(best[c].key, key[c]) : key[c];
    }
    if (RS == 1) return;
  }
}

struct Entering {
  int row, column;
  int whole;      // excess of the potentials over the cost, in whole numbers
  double excess;  // the same in costs
};

// Pricing by whole numbers, exact. Each column keeps the row that was its best when all arcs were looked at; as long as
// one of these few arcs still has a good part of the largest excess of that time, no arc else is looked at.
template <int RS, int CS>
struct WholePricing {
  const Memory<RS, CS>& memory;
  const int n, least;       // rows; excess below which an arc may stay out
  const Lanes<bool>* held;  // columns with mass
  Lanes<int> v[CS];         // potentials of the columns, times 32
  Lanes<int> row[CS];       // each column's arc
  Lanes<int> cost[CS];      // minus its cost, times 32
  int enough;               // excess for which an arc of these is taken

  DEVICE WholePricing(const Memory<RS, CS>& memory, int n, int least, const Lanes<bool>* held)
      : memory(memory), n(n), least(least), held(held), enough(1 << 27) {
    UNROLL
    for (int c = 0; c < CS; c++) row[c] = cost[c] = 0;
  }

  DEVICE void look_at_all() {
    Best best[CS];
    best_rows<RS, CS>(memory, n, best);
    UNROLL
    for (int c = 0; c < CS; c++) {
      row[c] = (best[c].key & 31) + best[c].first;
      cost[c] = best[c].key - load(memory.tag, row[c]);
    }
  }

  // The largest excess among the columns' arcs, and its arc.
  DEVICE void look(Entering& entering) const {
    Lanes<int> key = 0, slot = 0;
    UNROLL
    for (int c = 0; c < CS; c++) {
      const Lanes<int> excess = choose(held[c], load(memory.tag, row[c]) + cost[c] + v[c], Lanes<int>(0));
      if (CS > 1) slot = choose(excess > key, Lanes<int>(c), slot);
      key = larger(key, excess);
    }
    const int top = warp_max(key);
    const int lane = lowest(ballot(key == top));
    const int c = CS > 1 ? from_lane(slot, lane) : 0;
    entering.row = 0;
    UNROLL
    for (int each = 0; each < CS; each++)
      if (each == c) entering.row = from_lane(row[each], lane);
    entering.column = 32 * c + lane;
    entering.whole = top >> 5;
  }

  DEVICE bool price(Entering& entering) {
    look(entering);
    if (entering.whole >= enough) return true;
    look_at_all();
    look(entering);
    enough = larger(least, entering.whole / PART);
    return entering.whole >= least;
  }
};

// In float64; `above` returns for each column the largest potential less cost.
template <int RS, int CS, class Given>
DEVICE bool price_exactly(const Costs<Given>& costs, const Memory<RS, CS>& memory, double spread,
                          const Lanes<bool>* held, double least, Lanes<double>* above, Entering& entering) {
  const double unit = 1.0 / larger(spread, 1e-300);
  Lanes<float> key = 0.f;
  Lanes<int> row = 0, slot = 0;
  Lanes<double> excess = 0.0;
  UNROLL
  for (int c = 0; c < CS; c++) {
    Lanes<i64> at = costs.column(lane_index() + 32 * c);
    const Lanes<double> low = load(memory.low, lane_index() + 32 * c);
    Lanes<double> best = -INFINITE;
    Lanes<int> best_row = 0;
    for (int i = 0; i < costs.n; i++) {
      const Lanes<double> cost = convert<double>(load(costs.at, at)) - load_one(memory.mean, i) - low;
      const Lanes<double> x = load_one(memory.u, i) - cost;
      at = at + costs.row;
      const Lanes<bool> up = x > best;
      best = choose(up, x, best);
      best_row = choose(up, Lanes<int>(i), best_row);
    }
    above[c] = best;
    const Lanes<double> over = best + load(memory.v, lane_index() + 32 * c);
    const Lanes<bool> counts = held[c] && over > least;
    const Lanes<float> rank = choose(counts, convert<float>(over * unit), Lanes<float>(0.f));
    const Lanes<bool> up = rank > key;
    key = choose(up, rank, key);
    row = choose(up, best_row, row);
    excess = choose(up, over, excess);
    if (CS > 1) slot = choose(up, Lanes<int>(32 * c), slot);
  }
  const u32 top = warp_max(bits_of(key));
  if (top == 0) return false;
  const int lane = lowest(ballot(bits_of(key) == top));
  entering.row = from_lane(row, lane);
  entering.column = lane + (CS > 1 ? from_lane(slot, lane) : 0);
  entering.excess = from_lane(excess, lane);
  return true;
}
