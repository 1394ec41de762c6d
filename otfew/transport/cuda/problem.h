// A problem as its warp sees it: what it was given, and its memory.
#pragma once
#include "warp.h"

#define INFINITE double_of_bits(0x7ff0000000000000ull)
#define NOT_A_NUMBER double_of_bits(0x7ff8000000000000ull)

// Largest total mass of a problem inside the kernel; flows are whole numbers of units, so that sums are exact.
constexpr i64 UNITS = 1ll << 52;

// Nodes are rows 0..n-1 and columns ROWS..ROWS+m-1: 32 to a slot, lane l of slot k holding node 32 k + l.
template <int RS, int CS>
struct Sizes {
  static constexpr int SLOTS = RS + CS;
  static constexpr int ROWS = 32 * RS;
  static constexpr int NODES = 32 * SLOTS;
  // Odd: neither a row nor a column of the costs meets one memory bank twice.
  static constexpr int STRIDE = 32 * CS + 1;
  // Costs are scaled to whole numbers so small that the potential of a node at the end of any path, times 32, fits.
  static constexpr int REACH = 1 << 25;
};

// Costs as they were given: float32 or float64, anywhere, by strides.
template <class Given>
struct Costs {
  const Given* at;
  i64 row, col;
  int n, m;
  // Where a lane's column begins; lanes beyond the last column read that one.
  DEVICE Lanes<i64> column(Lanes<int> j) const { return convert<i64>(smaller(j, Lanes<int>(m - 1))) * col; }
};

template <int RS, int CS>
struct Memory {
  typedef Sizes<RS, CS> S;
  double* mean;    // [ROWS] what was taken from each row of the costs
  double* low;     // [32 CS] what was taken from each column after that
  double* u;       // [ROWS] potentials of the rows
  double* v;       // [32 CS] potentials of the columns
  i64* flow;       // [NODES] on the arc to the parent
  char* scratch;   // [12 * NODES bytes]
  u32* mask;       // [SLOTS][NODES] subtrees: bit l of mask[k][x] tells that node 32 k + l hangs under x or is x
  int* parent;     // [NODES] -1 at the root and at nodes outside the tree
  int* tag;        // [ROWS] 32 times the whole-number potential, plus the row modulo 32
  int* cost;       // [n, rounded up to 4][STRIDE] minus 32 times the whole-number costs

  DEVICE static int bytes(int n) {
    const int by_row = 8 + 8 + 4, by_column = 8 + 8, by_node = 8 + 12 + 4 * S::SLOTS + 4;
    return by_row * S::ROWS + by_column * 32 * CS + by_node * S::NODES + 4 * ((n + 3) / 4 * 4) * S::STRIDE;
  }
  DEVICE explicit Memory(char* from) {
    mean = reinterpret_cast<double*>(from);
    low = mean + S::ROWS;
    u = low + 32 * CS;
    v = u + S::ROWS;
    flow = reinterpret_cast<i64*>(v + 32 * CS);
    scratch = reinterpret_cast<char*>(flow + S::NODES);
    mask = reinterpret_cast<u32*>(scratch + 12 * S::NODES);
    parent = reinterpret_cast<int*>(mask + S::SLOTS * S::NODES);
    tag = parent + S::NODES;
    cost = tag + S::ROWS;
  }
};

constexpr int LOWEST = -2147483647 - 1;
// Row potential of rows that may not be priced: below all others, and far enough from overflow.
constexpr int CLOSED = LOWEST + (1 << 26);

// Sets of nodes of a side are bits, the same in all lanes. Shifted, not indexed: numbers in registers have no
// addresses, and a choice between two of them the compiler may turn into one between their addresses.
template <int S>
DEVICE bool bit_at(const u32* nodes, int x) {
  if (S == 1) return has(nodes[0], 1u << x);
  const u64 first = (u64)nodes[0] | (u64)nodes[S > 1 ? 1 : 0] << 32;
  const u64 second = (u64)nodes[S > 2 ? 2 : 0] | (u64)nodes[S > 2 ? 3 : 0] << 32;
  return (((S > 2 && x >= 64) ? second : first) >> (x & 63) & 1) != 0;
}
DEVICE Lanes<bool> lane_in(u32 nodes) { return has(nodes, Lanes<u32>(1u) << lane_index()); }
template <int S>
DEVICE int count_nodes(const u32* nodes) {
  int count = 0;
  UNROLL
  for (int k = 0; k < S; k++) count += count_bits(nodes[k]);
  return count;
}

// Number of the first node of a side with mass.
template <int S>
DEVICE int first_of(const u32* nodes) {
  int first = 0;
  UNROLL
  for (int k = S - 1; k >= 0; k--)
    if (nodes[k]) first = 32 * k + lowest(nodes[k]);
  return first;
}
