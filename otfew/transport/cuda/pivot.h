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
  // The nodes of the cycle but for its top. Of few slots every node has its place here; of more only those on the
  // cycle, so that a short one fills few places.
  static constexpr bool GATHERED = S::SLOTS > 2;
  static constexpr int ABOVE_ROW = 1024;  // beside a gathered node's number: it lies above the row
  const Memory<RS, CS>& memory;
  const int row, column;  // nodes of the entering arc
  int length;             // places in use
  Lanes<int> node[S::SLOTS];
  Lanes<bool> on[S::SLOTS];        // whether the place holds a node of the cycle
  Lanes<bool> over_row[S::SLOTS];  // which lies above the entering arc's row, and not above its column
  Lanes<bool> drains[S::SLOTS];    // and whose arc to the parent sends less
  Lanes<i64> flow[S::SLOTS];
  Lanes<int> above[S::SLOTS];
  i64 theta;
  int leaving;
  bool row_side;                // whether the leaving arc is on the row's side of the cycle
  u32 subtree[S::SLOTS];        // of the leaving node
  Lanes<bool> moved[S::SLOTS];  // the same, by slots of nodes

  DEVICE Pivot(const Memory<RS, CS>& memory, int row, int column) : memory(memory), row(row), column(column) {}

  DEVICE bool empty(int k) const { return GATHERED && 32 * k >= length; }

  DEVICE void find_cycle() {
    const u32* rows_word = memory.mask + (row >> 5) * S::NODES;
    const u32* columns_word = memory.mask + (column >> 5) * S::NODES;
    int* list = reinterpret_cast<int*>(memory.scratch);
    length = 0;
    UNROLL
    for (int k = 0; k < S::SLOTS; k++) {
      const Lanes<int> x = lane_index() + 32 * k;
      const Lanes<bool> up = has(load(rows_word, x), 1u << (row & 31));
      const Lanes<bool> other = has(load(columns_word, x), 1u << (column & 31));
      node[k] = x;
      over_row[k] = up;
      on[k] = up != other;
      if (GATHERED) {
        const u32 found = ballot(on[k]);
        if (!found) continue;
        const Lanes<int> place = count_bits(found & ((Lanes<u32>(1u) << lane_index()) - 1u)) + length;
        store(list, place, choose(up, x + ABOVE_ROW, x), on[k]);
        length += count_bits(found);
      }
    }
    if (GATHERED) gather(list);
  }

  DEVICE void gather(const int* list) {
    sync_lanes();
    UNROLL
    for (int k = 0; k < S::SLOTS; k++) {
      if (empty(k)) continue;
      const Lanes<int> place = lane_index() + 32 * k;
      on[k] = place < length;
      const Lanes<int> entry = load_if(list, place, on[k], Lanes<int>(0));
      over_row[k] = entry >= ABOVE_ROW;
      node[k] = entry & (ABOVE_ROW - 1);
    }
  }

  // Rows above the entering arc's row send less to their parents, and so do columns above its column; by theta, the
  // least that any of them sends.
  DEVICE void find_change() {
    Lanes<i64> least = i64(1) << 53;
    UNROLL
    for (int k = 0; k < S::SLOTS; k++) {
      if (empty(k)) continue;
      const Lanes<bool> is_row = GATHERED ? node[k] < S::ROWS : Lanes<bool>(k < RS);
      drains[k] = on[k] && over_row[k] == is_row;
      flow[k] = load(memory.flow, node[k]);
      above[k] = load(memory.parent, node[k]);
      least = choose(drains[k], smaller(flow[k], least), least);
    }
    theta = warp_smallest_units(least);
  }

  // Of the arcs that block, the last on the way round keeps the tree strongly feasible: the column's side comes after
  // the row's; there the topmost node, whose subtree is the largest, on the row's side the one furthest down.
  DEVICE void find_leaving() {
    Lanes<bool> blocks[S::SLOTS];
    int count = 0;
    UNROLL
    for (int k = 0; k < S::SLOTS; k++) {
      if (empty(k)) continue;
      blocks[k] = drains[k] && flow[k] == theta;
      const u32 blocking = ballot(blocks[k]);
      count += count_bits(blocking);
      if (blocking) leaving = GATHERED ? from_lane(node[k], lowest(blocking)) : 32 * k + lowest(blocking);
    }
    if (count > 1) break_tie(blocks);
    row_side = leaving < S::ROWS;
    UNROLL
    for (int k = 0; k < S::SLOTS; k++) {
      subtree[k] = load_one(memory.mask, k * S::NODES + leaving);
      moved[k] = lane_in(subtree[k]);
    }
  }

  DEVICE void break_tie(const Lanes<bool>* blocks) {
    Lanes<u32> key = 0u;
    Lanes<int> who = 0;
    UNROLL
    for (int k = 0; k < S::SLOTS; k++) {
      if (empty(k)) continue;
      Lanes<int> size = 0;
      for (int w = 0; w < S::SLOTS; w++) size = size + count_bits(load(memory.mask, node[k] + w * S::NODES));
      const Lanes<u32> rank = convert<u32>(choose(node[k] < S::ROWS, 1024 - size, 1024 + size));
      const Lanes<bool> up = blocks[k] && rank > key;
      key = choose(up, rank, key);
      who = choose(up, node[k], who);
    }
    const u32 top = warp_max(key);
    leaving = from_lane(who, lowest(ballot(key == top)));
  }

  DEVICE Lanes<bool> within_subtree(Lanes<int> x) const {
    const Lanes<u32> word = load(memory.mask, (x >> 5) * S::NODES + leaving);
    return has(word, Lanes<u32>(1u) << (x & 31));
  }

  // The leaving node's subtree turns upside down on the path from the entering arc down to the leaving one, and then
  // hangs on the entering arc: each node of that path takes the place of its parent. Nodes of the cycle outside the
  // subtree gain or lose it. Every place has one writer; all reads come before a barrier (the leaving node's own word
  // is never empty). What comes next must begin with another.
  DEVICE void turn() {
    const int inner = row_side ? row : column, outer = row_side ? column : row;
    Lanes<bool> pushes[S::SLOTS], stays[S::SLOTS];
    UNROLL
    for (int k = 0; k < S::SLOTS; k++) {
      if (empty(k)) continue;
      // The part of the cycle within the subtree is on the leaving arc's side, from the leaving node down.
      const Lanes<bool> within = GATHERED ? within_subtree(node[k]) : moved[k];
      pushes[k] = on[k] && within && node[k] != leaving;
      stays[k] = on[k] && !within;
      flow[k] = flow[k] + choose(drains[k], Lanes<i64>(-theta), Lanes<i64>(theta));
    }
    UNROLL
    for (int w = 0; w < S::SLOTS; w++) {
      const u32 part = subtree[w];
      if (!part) continue;
      u32* word = memory.mask + w * S::NODES;
      Lanes<u32> old[S::SLOTS];
      UNROLL
      for (int k = 0; k < S::SLOTS; k++) {
        if (empty(k)) continue;
        old[k] = load(word, node[k]);
      }
      sync_lanes();
      UNROLL
      for (int k = 0; k < S::SLOTS; k++) {
        if (empty(k)) continue;
        const Lanes<bool> gains = row_side ? !over_row[k] : over_row[k];
        const Lanes<u32> kept = old[k] & ~part;
        store(word, node[k], choose(gains, kept | part, kept), stays[k]);
        store(word, above[k], ~old[k] & part, pushes[k]);
      }
      store(word, Lanes<int>(inner), Lanes<u32>(part), lane_index() == 0);
    }
    UNROLL
    for (int k = 0; k < S::SLOTS; k++) {
      if (empty(k)) continue;
      store(memory.flow, choose(pushes[k], above[k], node[k]), flow[k], pushes[k] || stays[k]);
      store(memory.parent, above[k], node[k], pushes[k]);
    }
    store(memory.flow, Lanes<int>(inner), Lanes<i64>(theta), lane_index() == 0);
    store(memory.parent, Lanes<int>(inner), Lanes<int>(outer), lane_index() == 0);
  }

  DEVICE void run() {
    find_cycle();
    find_change();
    find_leaving();
    turn();
  }
};
