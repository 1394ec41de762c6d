// The names of otfew/transport/cuda/warp.h on a CPU: a value holds all 32 lanes, which go in lockstep.
//
// Compiled with WATCHED the lanes are not trusted to be in lockstep, as a GPU's need not be: what one lane wrote no
// other may read or write before `sync_lanes`, nor write what another has read; two lanes may not write one place in
// one store; memory must be written before it is read, and nobody may leave it. Compiled with COUNTED each operation of
// the warp is counted, those of 64-bit integers and their shuffles twice.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <vector>

typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;

#define DEVICE inline
#define UNROLL
#define ROLLED

constexpr int WARP = 32;
static bool backwards = false;  // stores begin with the last lane
static long long counted = 0;
static std::string fault;

#ifdef COUNTED
#define COUNT(n) counted += (n)
#else
#define COUNT(n)
#endif

template <class T>
constexpr int weight() {
  return std::is_integral<T>::value && sizeof(T) == 8 ? 2 : 1;
}

template <class T>
struct Lanes {
  T lane[WARP];
  Lanes() {
#ifdef WATCHED
    memset(lane, 0xa5, sizeof lane);
#endif
  }
  Lanes(T x) {
    for (T& each : lane) each = x;
  }
};

template <class T>
struct Kind : std::false_type {
  typedef T Each;
};
template <class T>
struct Kind<Lanes<T>> : std::true_type {
  typedef T Each;
};
template <class T>
using Each = typename Kind<T>::Each;
template <class... T>
using IfAny = std::enable_if_t<(Kind<T>::value || ...), int>;
template <class... T>
using IfNone = std::enable_if_t<!(Kind<T>::value || ...), int>;
template <class T>
inline const T& of(const T& x, int) {
  return x;
}
template <class T>
inline const T& of(const Lanes<T>& x, int l) {
  return x.lane[l];
}

// One value for each lane, from an expression of l.
#define EACH(T, EXPRESSION)                              \
  Lanes<T> r;                                            \
  for (int l = 0; l < WARP; l++) r.lane[l] = EXPRESSION; \
  return r;

#define BINARY(OP)                                                            \
  template <class A, class B, IfAny<A, B> = 0>                                \
  inline auto operator OP(const A& a, const B& b) {                           \
    typedef decltype(Each<A>() OP Each<B>()) R;                               \
    COUNT((weight<decltype(Each<A>() + Each<B>())>()));                       \
    EACH(R, of(a, l) OP of(b, l))                                             \
  }
BINARY(+) BINARY(-) BINARY(*) BINARY(/) BINARY(&) BINARY(|) BINARY(^) BINARY(<<) BINARY(>>)
BINARY(<) BINARY(<=) BINARY(>) BINARY(>=) BINARY(==) BINARY(!=) BINARY(&&) BINARY(||)
template <class T>
inline Lanes<T> operator~(const Lanes<T>& a) {
  COUNT(1);
  EACH(T, ~a.lane[l])
}
template <class T>
inline Lanes<T> operator-(const Lanes<T>& a) {
  COUNT(1);
  EACH(T, -a.lane[l])
}
inline Lanes<bool> operator!(const Lanes<bool>& a) { EACH(bool, !a.lane[l]) }

inline float float_of_bits(u32 bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}
inline double double_of_bits(u64 bits) {
  double x;
  memcpy(&x, &bits, 8);
  return x;
}

inline Lanes<float> float_of_bits(const Lanes<u32>& bits) { EACH(float, float_of_bits(bits.lane[l])) }
inline Lanes<double> double_of_bits(const Lanes<u64>& bits) { EACH(double, double_of_bits(bits.lane[l])) }

inline Lanes<int> lane_index() { EACH(int, l) }

template <class A, class B, IfAny<B> = 0>
inline Lanes<A> convert(const B& x) {
  COUNT(1);
  EACH(A, (A)x.lane[l])
}
template <class A, class B, IfNone<B> = 0>
inline A convert(B x) {
  return (A)x;
}
template <class C, class A, class B>
inline auto choose(const C& when, const A& a, const B& b) {
  COUNT(weight<Each<A>>());
  EACH(Each<A>, of(when, l) ? of(a, l) : of(b, l))
}
template <class A, class B, IfAny<A, B> = 0>
inline auto larger(const A& a, const B& b) {
  COUNT(weight<Each<A>>());
  EACH(Each<A>, of(a, l) > of(b, l) ? of(a, l) : of(b, l))
}
template <class T, IfNone<T> = 0>
inline T larger(T a, T b) {
  return a > b ? a : b;
}
template <class A, class B, IfAny<A, B> = 0>
inline auto smaller(const A& a, const B& b) {
  COUNT(weight<Each<A>>());
  EACH(Each<A>, of(a, l) < of(b, l) ? of(a, l) : of(b, l))
}
template <class T, IfNone<T> = 0>
inline T smaller(T a, T b) {
  return a < b ? a : b;
}

template <class A, class B, IfAny<A, B> = 0>
inline Lanes<bool> has(const A& mask, const B& bit) {
  COUNT(1);
  EACH(bool, (of(mask, l) & of(bit, l)) != 0)
}
inline bool has(u32 mask, u32 bit) { return (mask & bit) != 0; }
inline int count_bits(u32 x) { return __builtin_popcount(x); }
inline Lanes<int> count_bits(const Lanes<u32>& x) {
  COUNT(1);
  EACH(int, __builtin_popcount(x.lane[l]))
}
inline int lowest(u32 x) { return __builtin_ffs((int)x) - 1; }
inline u32 raw_bits(float x) {
  u32 bits;
  memcpy(&bits, &x, 4);
  return bits;
}
inline u64 raw_bits(double x) {
  u64 bits;
  memcpy(&bits, &x, 8);
  return bits;
}
inline Lanes<u32> bits_of(const Lanes<float>& x) { EACH(u32, raw_bits(x.lane[l])) }
inline u64 bits_of(double x) { return raw_bits(x); }
inline Lanes<u64> bits_of(const Lanes<double>& x) { EACH(u64, raw_bits(x.lane[l])) }
template <class T>
inline Lanes<T> magnitude(const Lanes<T>& x) {
  EACH(T, std::fabs(x.lane[l]))
}
inline double magnitude(double x) { return std::fabs(x); }
inline double square_root(double x) { return std::sqrt(x); }
inline Lanes<double> square_root(const Lanes<double>& x) {
  COUNT(1);
  EACH(double, std::sqrt(x.lane[l]))
}
inline Lanes<i64> nearest_i64(const Lanes<double>& x) {
  COUNT(1);
  EACH(i64, (i64)std::nearbyint(x.lane[l]))
}
inline Lanes<int> nearest_int(const Lanes<float>& x) {
  COUNT(1);
  EACH(int, (int)std::nearbyint(x.lane[l]))
}

inline u32 ballot(const Lanes<bool>& x) {
  COUNT(1);
  u32 votes = 0;
  for (int l = 0; l < WARP; l++) votes |= (u32)x.lane[l] << l;
  return votes;
}
template <class T, class Better>
inline T fold(const Lanes<T>& x, Better better) {
  T best = x.lane[0];
  for (T each : x.lane) best = better(each, best) ? each : best;
  return best;
}
inline int warp_max(const Lanes<int>& x) {
  COUNT(1);
  return fold(x, [](int a, int b) { return a > b; });
}
inline u32 warp_max(const Lanes<u32>& x) {
  COUNT(1);
  return fold(x, [](u32 a, u32 b) { return a > b; });
}
inline u32 warp_min(const Lanes<u32>& x) {
  COUNT(1);
  return fold(x, [](u32 a, u32 b) { return a < b; });
}
inline u32 warp_or(const Lanes<u32>& x) {
  COUNT(1);
  u32 all = 0;
  for (u32 each : x.lane) all |= each;
  return all;
}
template <class T>
inline T from_lane(const Lanes<T>& x, int lane) {
  COUNT(sizeof(T) / 4 ? sizeof(T) / 4 : 1);
  return x.lane[lane & 31];
}
template <class T, class Join>
inline T by_halves(Lanes<T> x, Join join) {
  COUNT(5 * (1 + sizeof(T) / 4));
  for (int apart = 16; apart; apart >>= 1)
    for (int l = 0; l < apart; l++) x.lane[l] = join(x.lane[l], x.lane[l + apart]);
  return x.lane[0];
}
template <class T>
inline T warp_sum(const Lanes<T>& x) {
  return by_halves(x, [](T a, T b) { return a + b; });
}
template <class T>
inline T warp_largest(const Lanes<T>& x) {
  return by_halves(x, [](T a, T b) { return a > b ? a : b; });
}
template <class T>
inline T warp_smallest(const Lanes<T>& x) {
  return by_halves(x, [](T a, T b) { return a < b ? a : b; });
}

#include "watch.h"
template <class T, class I>
inline Lanes<T> load(const T* from, const I& at) {
  COUNT(1);
  Lanes<T> r;
  for (int l = 0; l < WARP; l++) {
    READ(from + of(at, l), l);
    r.lane[l] = from[of(at, l)];
  }
  return r;
}
template <class T, class I>
inline Lanes<T> load(const T* from, const I& at, const Lanes<bool>& when, const Lanes<T>& otherwise) {
  COUNT(1);
  Lanes<T> r;
  for (int l = 0; l < WARP; l++) {
    r.lane[l] = otherwise.lane[l];
    if (!when.lane[l]) continue;
    READ(from + of(at, l), l);
    r.lane[l] = from[of(at, l)];
  }
  return r;
}
template <class T, class I>
inline T load_one(const T* from, I at) {
  COUNT(1);
  for (int l = 0; l < WARP; l++) READ(from + at, l);
  return from[at];
}
struct Four {
  int x, y, z, w;
};
inline Four load_four(const int* from) {
  COUNT(1);
  if ((uintptr_t)from % 16) fault = "four numbers read at once begin at a multiple of 16 bytes";
  for (int l = 0; l < WARP; l++)
    for (int k = 0; k < 4; k++) READ(from + k, l);
  return {from[0], from[1], from[2], from[3]};
}
template <class T, class I, class C>
inline Lanes<T> load_if(const T* from, const I& at, const C& when, const Lanes<T>& otherwise) {
  COUNT(1);
  Lanes<T> r = otherwise;
  for (int l = 0; l < WARP; l++) {
    if (!of(when, l)) continue;
    READ(from + of(at, l), l);
    r.lane[l] = from[of(at, l)];
  }
  return r;
}
template <class T, class I, class X, class C>
inline void store(T* to, const I& at, const X& x, const C& when) {
  COUNT(1);
  for (int k = 0; k < WARP; k++) {
    const int l = backwards ? WARP - 1 - k : k;
    if (!of(when, l)) continue;
    WRITE(to + of(at, l), l);
    to[of(at, l)] = of(x, l);
  }
}
template <class T, class I, class X>
inline void store(T* to, const I& at, const X& x) {
  store(to, at, x, true);
}
template <class I, class X, class C>
inline void store_least(u32* to, const I& at, const X& x, const C& when) {
  COUNT(1);
  // Atomic: lanes may meet here, in any order.
  for (int l = 0; l < WARP; l++) {
    if (!of(when, l)) continue;
    JOIN(to + of(at, l), l);
    if (of(x, l) < to[of(at, l)]) to[of(at, l)] = of(x, l);
  }
}
inline void raise_flag(int* flag, int bits) { *flag |= bits; }

// A kernel is a function of its arguments, a problem and the warp's memory.
#define KERNEL(NAME, ARGUMENTS, BYTES, SOLVE)                                                            \
  extern "C" int struct_bytes() { return (int)sizeof(ARGUMENTS); }                                       \
  extern "C" int warp_bytes(const ARGUMENTS* arguments) {                                                \
    const ARGUMENTS& problems = *arguments;                                                              \
    (void)problems;                                                                                      \
    return BYTES;                                                                                        \
  }                                                                                                      \
  static void solve_one(const ARGUMENTS& problems, int k, char* memory) {                                \
    (void)memory;                                                                                        \
    SOLVE;                                                                                               \
  }                                                                                                      \
  extern "C" const char* run(const ARGUMENTS* arguments, int bytes, int last_lane_first, i64* operations) { \
    std::vector<char> memory(bytes + 64);                                                                \
    char* begin = memory.data() + (16 - (uintptr_t)memory.data() % 16) % 16;                             \
    backwards = last_lane_first;                                                                         \
    counted = 0;                                                                                         \
    fault.clear();                                                                                       \
    for (int k = 0; k < arguments->problems && fault.empty(); k++) {                                     \
      memset(begin, 0xa5, bytes + 16);                                                                   \
      WATCH_FROM(begin, bytes);                                                                          \
      solve_one(*arguments, k, begin);                                                                   \
      for (int x = bytes; x < bytes + 16; x++)                                                           \
        if (begin[x] != (char)0xa5) fault = "written beyond the warp's memory";                          \
    }                                                                                                    \
    *operations = counted;                                                                               \
    return fault.c_str();                                                                                \
  }
#ifdef WATCHED
#define WATCH_FROM(BEGIN, BYTES) watch.begin(BEGIN, BYTES)
#else
#define WATCH_FROM(BEGIN, BYTES)
#endif
