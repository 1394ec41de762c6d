// What the 32 lanes of a warp do together, on a GPU.
//
// The solvers are written on these functions alone and with control flow that is uniform over the warp: what differs
// between lanes is a `choose` or a predicated `store`. So the same text also compiles for a CPU, where the tests give
// each of these names 32 lanes in lockstep and watch what the lanes do to each other's memory.
//
// Lanes<T> is a value that differs between lanes; a plain T is the same in all of them.
#pragma once

typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;

#define DEVICE __device__ __forceinline__
#define UNROLL _Pragma("unroll")
#define ROLLED _Pragma("unroll 1")
#define ALL_LANES 0xffffffffu

template <class T>
using Lanes = T;

DEVICE float float_of_bits(u32 bits) { return __uint_as_float(bits); }
DEVICE double double_of_bits(u64 bits) { return __longlong_as_double((i64)bits); }

DEVICE int lane_index() { return threadIdx.x & 31; }

template <class A, class B>
DEVICE A convert(B x) {
  return (A)x;
}

template <class T>
DEVICE T choose(bool when, T a, T b) {
  return when ? a : b;
}
template <class T>
DEVICE T larger(T a, T b) {
  return a > b ? a : b;
}
template <class T>
DEVICE T smaller(T a, T b) {
  return a < b ? a : b;
}

// Bits and rounding.
DEVICE bool has(u32 mask, u32 bit) { return (mask & bit) != 0; }
DEVICE int count_bits(u32 x) { return __popc(x); }
DEVICE int lowest(u32 x) { return __ffs((int)x) - 1; }
DEVICE u32 bits_of(float x) { return __float_as_uint(x); }
DEVICE u64 bits_of(double x) { return (u64)__double_as_longlong(x); }
DEVICE float magnitude(float x) { return fabsf(x); }
DEVICE double magnitude(double x) { return fabs(x); }
DEVICE i64 nearest_i64(double x) { return __double2ll_rn(x); }
DEVICE double square_root(double x) { return sqrt(x); }
DEVICE int nearest_int(float x) { return __float2int_rn(x); }

// Votes, reductions and broadcasts; each returns the same in every lane.
DEVICE u32 ballot(bool x) { return __ballot_sync(ALL_LANES, x); }
DEVICE int warp_max(int x) { return __reduce_max_sync(ALL_LANES, x); }
DEVICE u32 warp_max(u32 x) { return __reduce_max_sync(ALL_LANES, x); }
DEVICE u32 warp_min(u32 x) { return __reduce_min_sync(ALL_LANES, x); }
DEVICE u32 warp_or(u32 x) { return __reduce_or_sync(ALL_LANES, x); }
template <class T>
DEVICE T from_lane(T x, int lane) {
  return __shfl_sync(ALL_LANES, x, lane);
}
template <class T>
DEVICE T warp_sum(T x) {
  // Each pair of lanes adds the same two numbers, so all lanes end with the same bits.
  for (int apart = 16; apart; apart >>= 1) x += __shfl_xor_sync(ALL_LANES, x, apart);
  return x;
}
template <class T>
DEVICE T warp_largest(T x) {
  for (int apart = 16; apart; apart >>= 1) x = larger(x, __shfl_xor_sync(ALL_LANES, x, apart));
  return x;
}
template <class T>
DEVICE T warp_smallest(T x) {
  for (int apart = 16; apart; apart >>= 1) x = smaller(x, __shfl_xor_sync(ALL_LANES, x, apart));
  return x;
}

// Memory. What one lane wrote another may read after `sync_lanes`.
DEVICE void sync_lanes() { __syncwarp(); }
template <class T, class I>
DEVICE T load(const T* from, I at) {
  return from[at];
}
template <class T, class I>
DEVICE T load(const T* from, I at, bool when, T otherwise) {
  return when ? from[at] : otherwise;
}
template <class T, class I>
DEVICE T load_one(const T* from, I at) {
  return from[at];
}
struct Four {
  int x, y, z, w;
};
DEVICE Four load_four(const int* from) {
  const int4 four = *reinterpret_cast<const int4*>(from);
  return {four.x, four.y, four.z, four.w};
}
template <class T, class I>
DEVICE T load_if(const T* from, I at, bool when, T otherwise) {
  return when ? from[at] : otherwise;
}
template <class T, class I>
DEVICE void store(T* to, I at, T x) {
  to[at] = x;
}
template <class T, class I>
DEVICE void store(T* to, I at, T x, bool when) {
  if (when) to[at] = x;
}
// Integers: the outcome does not depend on the order of the lanes.
template <class I>
DEVICE void store_least(u32* to, I at, u32 x, bool when) {
  if (when) atomicMin(to + at, x);
}
// Integers shared by all problems of a launch.
DEVICE void raise_flag(int* flag, int bits) {
  if (lane_index() == 0) atomicOr(flag, bits);
}
