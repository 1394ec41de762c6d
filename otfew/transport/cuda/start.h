// A first tree: greedy by least cost, many pairs at a time, and strongly feasible.
#pragma once
#include "pricing.h"

template <int RS, int CS>
struct Start {
  typedef Sizes<RS, CS> S;
  const Memory<RS, CS>& memory;
  const int n;
  i64* left;     // [ROWS] units that rows still have
  u32* offer;    // [ROWS] least offer to each row in this round
  Lanes<i64> wants[CS];  // units that columns still want
  Lanes<bool> open[CS];
  Lanes<int> row[CS];    // cheapest open row
  Lanes<int> price[CS];  // what it costs

  DEVICE Start(const Memory<RS, CS>& memory, int n)
      : memory(memory), n(n), left(reinterpret_cast<i64*>(memory.scratch)),
        offer(reinterpret_cast<u32*>(memory.scratch + 8 * S::NODES)) {}

  // No node hangs anywhere yet; rows without mass are closed.
  DEVICE void prepare(const Lanes<i64>* units) {
    const Lanes<int> lane = lane_index();
    UNROLL
    for (int k = 0; k < S::SLOTS; k++) {
      store(memory.parent, lane + 32 * k, Lanes<int>(-1));
      store(memory.flow, lane + 32 * k, Lanes<i64>(i64(0)));
      UNROLL
      for (int w = 0; w < S::SLOTS; w++)
        store(memory.mask, lane + (32 * k + w * S::NODES), w == k ? Lanes<u32>(1u) << lane : Lanes<u32>(0u));
    }
    UNROLL
    for (int r = 0; r < RS; r++) {
      store(left, lane + 32 * r, units[r]);
      store(memory.tag, lane + 32 * r, choose(units[r] > i64(0), lane, Lanes<int>(CLOSED)));
    }
    UNROLL
    for (int c = 0; c < CS; c++) {
      wants[c] = units[RS + c];
      open[c] = wants[c] > i64(0);
      row[c] = 0;
      price[c] = 0;
    }
    sync_lanes();
  }

  DEVICE bool any_open() const {
    u32 any = 0;
    UNROLL
    for (int c = 0; c < CS; c++) any |= ballot(open[c]);
    return any != 0;
  }

  // Columns whose row has closed look for their cheapest open row; the others find the same again.
  DEVICE void choose_rows(bool first) {
    Lanes<bool> look = first;
    UNROLL
    for (int c = 0; c < CS; c++) look = look || (open[c] && load(memory.tag, row[c]) == CLOSED);
    if (!ballot(look)) return;
    Best best[CS];
    best_rows<RS, CS>(memory, n, best);
    UNROLL
    for (int c = 0; c < CS; c++) {
      row[c] = (best[c].key & 31) + best[c].first;
      price[c] = (best[c].key >> 5) * -1;
    }
  }

  // Each row hears the cheapest of the columns that chose it.
  DEVICE void make_offers(Lanes<u32>* mine) {
    const Lanes<int> lane = lane_index();
    UNROLL
    for (int r = 0; r < RS; r++) store(offer, lane + 32 * r, Lanes<u32>(~0u));
    sync_lanes();
    UNROLL
    for (int c = 0; c < CS; c++) {
      mine[c] = convert<u32>((price[c] << 7) + (lane + 32 * c));
      store_least(offer, row[c], mine[c], open[c]);
    }
    sync_lanes();
  }

  // Pairs are settled at once: who is exhausted hangs under the other; when both are, the column hangs under the row,
  // which goes on with nothing left, so that arcs without flow lead from a row up to a column.
  DEVICE void settle(const Lanes<u32>* mine) {
    UNROLL
    for (int c = 0; c < CS; c++) {
      const Lanes<int> column = lane_index() + (S::ROWS + 32 * c);
      const Lanes<bool> won = open[c] && load(offer, row[c]) == mine[c];
      const Lanes<i64> has_left = load_if(left, row[c], won, Lanes<i64>(i64(0)));
      const Lanes<bool> filled = wants[c] <= has_left;
      const Lanes<int> child = choose(filled, column, row[c]);
      const Lanes<int> above = choose(filled, row[c], column);
      const Lanes<i64> amount = choose(filled, wants[c], has_left);
      store(memory.parent, child, above, won);
      store(memory.flow, child, amount, won);
      UNROLL
      for (int w = 0; w < S::SLOTS; w++) {
        const Lanes<u32> both = load_if(memory.mask, above + w * S::NODES, won, Lanes<u32>(0u)) |
                                load_if(memory.mask, child + w * S::NODES, won, Lanes<u32>(0u));
        store(memory.mask, above + w * S::NODES, both, won);
      }
      store(left, row[c], has_left - amount, won);
      store(memory.tag, row[c], Lanes<int>(CLOSED), won && !filled);
      wants[c] = choose(won, wants[c] - amount, wants[c]);
      open[c] = open[c] && !(won && filled);
    }
    sync_lanes();
  }

  // Rows that are open in the end have nothing left. One is the root, one that a column hangs under; the others hang,
  // without flow, under that column. Returns the root.
  DEVICE int close() {
    u32 rest[RS];
    int root = 0, column = 0;
    UNROLL
    for (int r = 0; r < RS; r++) rest[r] = ballot(load(memory.tag, lane_index() + 32 * r) != CLOSED);
    UNROLL
    for (int c = 0; c < CS; c++) {
      const Lanes<int> above = load(memory.parent, lane_index() + (S::ROWS + 32 * c));
      const Lanes<bool> hangs = above >= 0;
      const u32 under = ballot(hangs && load(memory.tag, choose(hangs, above, Lanes<int>(0))) != CLOSED);
      if (!under) continue;
      column = S::ROWS + 32 * c + lowest(under);
      root = from_lane(above, lowest(under));
    }
    u32 others = 0;
    UNROLL
    for (int r = 0; r < RS; r++) {
      rest[r] &= (root >> 5) == r ? ~(1u << (root & 31)) : ~0u;
      others |= rest[r];
    }
    if (others) hang(rest, column, root);
    return root;
  }

  DEVICE void hang(const u32* rest, int column, int root) {
    const Lanes<int> lane = lane_index();
    UNROLL
    for (int r = 0; r < RS; r++)
      store(memory.parent, lane + 32 * r, Lanes<int>(column), lane_in(rest[r]));
    u32 below[S::SLOTS];
    UNROLL
    for (int w = 0; w < S::SLOTS; w++) {
      below[w] = 0;
      UNROLL
      for (int r = 0; r < RS; r++)
        below[w] |= warp_or(
            choose(lane_in(rest[r]), load(memory.mask, lane + (32 * r + w * S::NODES)), Lanes<u32>(0u)));
    }
    sync_lanes();
    const Lanes<int> at = choose(lane == 0, Lanes<int>(column), Lanes<int>(root));
    UNROLL
    for (int w = 0; w < S::SLOTS; w++) {
      u32* word = memory.mask + w * S::NODES;
      store(word, at, load_if(word, at, lane < 2, Lanes<u32>(0u)) | below[w], lane < 2);
    }
  }

  // Returns the root of the tree.
  DEVICE int run(const Lanes<i64>* units) {
    prepare(units);
    bool first = true;
    while (any_open()) {
      Lanes<u32> mine[CS];
      choose_rows(first);
      first = false;
      make_offers(mine);
      settle(mine);
    }
    return close();
  }
};
