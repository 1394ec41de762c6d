// One pivot, without walking along any path: a node lies above another if its subtree's mask has the other's bit, so
// the cycle that an entering arc closes is the set of nodes above exactly one of the arc's ends.
#pragma once
#include "problem.h"

DEVICE i64 warp_smallest_units(Lanes<i64> x) {
  const Lanes<u32> high = convert<u32>(x >> 27), low = convert<u32>(x & i64((1 << 27) - 1));
  const u32 top = warp_min(high);
  const u32 rest = warp_min(choose(high == top, low, Lanes<u32>(~0u)));
  return ((i64)top << 27) | rest;
}

template <int RS, int CS>
struct Pivot {
  typedef Sizes<RS, CS> S;
  const Memory<RS, CS>& memory;
  const int row, column;  // nodes of the entering arc
  Lanes<bool> over_row[S::SLOTS], over_column[S::SLOTS];  // nodes above the arc's ends
  Lanes<bool> on[S::SLOTS];      // nodes on the cycle, but for its top
  Lanes<bool> drains[S::SLOTS];  // of these, nodes whose arc to the parent sends less
  Lanes<i64> flow[S::SLOTS];
  Lanes<int> above[S::SLOTS];
  i64 theta;
  int leaving;
  bool row_side;               // whether the leaving arc is on the row's side of the cycle
  u32 subtree[S::SLOTS];       // of the leaving node
  Lanes<bool> moved[S::SLOTS]; // the same by lane

  DEVICE Pivot(const Memory<RS, CS>& memory, int row, int column) : memory(memory), row(row), column(column) {}

  DEVICE void find_cycle() {
    const u32* rows_word = memory.mask + (row >> 5) * S::NODES;
    const u32* columns_word = memory.mask + (column >> 5) * S::NODES;
    Lanes<i64> least = i64(1) << 53;
    UNROLL
    for (int k = 0; k < S::SLOTS; k++) {
      const Lanes<int> x = lane_index() + 32 * k;
      over_row[k] = has(load(rows_word, x), 1u << (row & 31));
      over_column[k] = has(load(columns_word, x), 1u << (column & 31));
      on[k] = over_row[k] != over_column[k];
      drains[k] = on[k] && (k < RS ? over_row[k] : over_column[k]);
      flow[k] = load(memory.flow, x);
      above[k] = load(memory.parent, x);
      least = choose(drains[k], smaller(flow[k], least), least);
    }
    theta = warp_smallest_units(least);
  }

  // Of the arcs that block, the last on the way round keeps the tree strongly feasible: the column's side comes after
  // the row's; there the topmost node, whose subtree is the largest, on the row's side the one furthest down.
  DEVICE void find_leaving() {
    u32 blocking[S::SLOTS];
    int count = 0;
    UNROLL
    for (int k = 0; k < S::SLOTS; k++) {
      blocking[k] = ballot(drains[k] && flow[k] == theta);
      count += count_bits(blocking[k]);
      if (blocking[k]) leaving = 32 * k + lowest(blocking[k]);
    }
    if (count > 1) {
      Lanes<u32> key = 0u;
      Lanes<int> slot = 0;
      UNROLL
      for (int k = 0; k < S::SLOTS; k++) {
        if (!blocking[k]) continue;
        Lanes<int> size = 0;
        for (int w = 0; w < S::SLOTS; w++)
          size = size + count_bits(load(memory.mask, lane_index() + (32 * k + w * S::NODES)));
        const Lanes<u32> rank = convert<u32>(k < RS ? 1024 - size : 1024 + size);
        const Lanes<u32> counts = choose(lane_in(blocking[k]), rank, Lanes<u32>(0u));
        const Lanes<bool> up = counts > key;
        key = choose(up, counts, key);
        slot = choose(up, Lanes<int>(32 * k), slot);
      }
      const u32 top = warp_max(key);
      const int lane = lowest(ballot(key == top));
      leaving = lane + from_lane(slot, lane);
    }
    row_side = leaving < S::ROWS;
    UNROLL
    for (int k = 0; k < S::SLOTS; k++) {
      subtree[k] = load_one(memory.mask, k * S::NODES + leaving);
      moved[k] = lane_in(subtree[k]);
    }
  }

  // The leaving node's subtree turns upside down on the path from the entering arc down to the leaving one, and then
  // hangs on the entering arc: each node of that path takes the place of its parent. Nodes of the cycle outside the
  // subtree gain or lose it. Every place has one writer; all reads come before a barrier (the leaving node's own word is
  // never empty). What comes next must begin with another.
  DEVICE void turn() {
    const int inner = row_side ? row : column, outer = row_side ? column : row;
    Lanes<bool> pushes[S::SLOTS], stays[S::SLOTS], gains[S::SLOTS];
    UNROLL
    for (int k = 0; k < S::SLOTS; k++) {
      const Lanes<int> x = lane_index() + 32 * k;
      pushes[k] = on[k] && moved[k] && x != leaving;
      stays[k] = on[k] && !moved[k];
      gains[k] = row_side ? over_column[k] : over_row[k];
      flow[k] = flow[k] + choose(drains[k], Lanes<i64>(-theta), Lanes<i64>(theta));
    }
    UNROLL
    for (int w = 0; w < S::SLOTS; w++) {
      const u32 part = subtree[w];
      if (!part) continue;
      u32* word = memory.mask + w * S::NODES;
      Lanes<u32> old[S::SLOTS];
      UNROLL
      for (int k = 0; k < S::SLOTS; k++) old[k] = load(word, lane_index() + 32 * k);
      sync_lanes();
      UNROLL
      for (int k = 0; k < S::SLOTS; k++) {
        const Lanes<u32> kept = old[k] & ~part;
        store(word, lane_index() + 32 * k, choose(gains[k], kept | part, kept), stays[k]);
        store(word, above[k], ~old[k] & part, pushes[k]);
      }
      store(word, Lanes<int>(inner), Lanes<u32>(part), lane_index() == 0);
    }
    UNROLL
    for (int k = 0; k < S::SLOTS; k++) {
      const Lanes<int> x = lane_index() + 32 * k;
      store(memory.flow, choose(pushes[k], above[k], x), flow[k], pushes[k] || stays[k]);
      store(memory.parent, above[k], x, pushes[k]);
    }
    store(memory.flow, Lanes<int>(inner), Lanes<i64>(theta), lane_index() == 0);
    store(memory.parent, Lanes<int>(inner), Lanes<int>(outer), lane_index() == 0);
  }

  DEVICE void run() {
    find_cycle();
    find_leaving();
    turn();
  }
};
