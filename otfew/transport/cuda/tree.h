// Potentials from a tree.
#pragma once
#include "problem.h"

// Every tree arc (i, j) has cost u_i + v_j, and the root's potential is zero. Each node sums the costs of its path
// with alternating signs, twice as far at each step: `arc` gives the cost of an arc by its row and
// column. Potentials of nodes outside the tree are zero.
template <class T, int RS, int CS, class Arc>
DEVICE void tree_potentials(const Memory<RS, CS>& memory, int root, const Arc& arc, Lanes<T>* potential) {
  typedef Sizes<RS, CS> S;
  T* sums = reinterpret_cast<T*>(memory.scratch);
  int* tops = reinterpret_cast<int*>(memory.scratch + 8 * S::NODES);
  const Lanes<int> lane = lane_index();
  Lanes<int> top[S::SLOTS];
  UNROLL
  for (int k = 0; k < S::SLOTS; k++) {
    const Lanes<int> above = load(memory.parent, lane + 32 * k);
    const Lanes<bool> hangs = above >= 0;
    top[k] = choose(hangs, above, Lanes<int>(root));
    const Lanes<int> row = k < RS ? lane + 32 * k : top[k];
    const Lanes<int> column = (k < RS ? top[k] : lane + 32 * k) - S::ROWS;
    const Lanes<T> cost = arc(choose(hangs, row, Lanes<int>(0)), choose(hangs, column, Lanes<int>(0)));
    potential[k] = choose(hangs, cost, Lanes<T>(T(0)));
  }
  bool first = true;
  u32 under = 1;
  while (under) {
    UNROLL
    for (int k = 0; k < S::SLOTS; k++) {
      store(sums, lane + 32 * k, potential[k]);
      store(tops, lane + 32 * k, top[k]);
    }
    sync_lanes();
    under = 0;
    UNROLL
    for (int k = 0; k < S::SLOTS; k++) {
      // The first step goes from one side to the other, all further ones an even number of arcs up.
      const Lanes<T> beyond = load(sums, top[k]);
      potential[k] = first ? potential[k] - beyond : potential[k] + beyond;
      top[k] = load(tops, top[k]);
      under |= ballot(top[k] != root);
    }
    first = false;
    sync_lanes();
  }
}
