// Exponentials and logarithms made of sums, products and bits: the same numbers on every GPU, and on a CPU.
#pragma once
#include "warp.h"

constexpr double LOG2E = 1.4426950408889634;

DEVICE double infinity() { return double_of_bits(0x7ff0000000000000ull); }
DEVICE double not_a_number() { return double_of_bits(0x7ff8000000000000ull); }
DEVICE bool is_finite(double x) { return x - x == 0.0; }

// exp(x) to two units of rounding for x <= 709; 0 below -708, NaN of NaN.
DEVICE Lanes<double> exponential(Lanes<double> x) {
  // x = whole log(2) + r with |r| <= log(2) / 2; the first part of log(2) has so few bits that its multiples are exact.
  const Lanes<i64> whole = nearest_i64(x * LOG2E);
  const Lanes<double> k = convert<double>(whole);
  const Lanes<double> r = (x - k * 6.93145751953125e-1) - k * 1.42860682030941723212e-6;
  Lanes<double> y = 1.0 / 6227020800.0;
  y = y * r + 1.0 / 479001600.0;
  y = y * r + 1.0 / 39916800.0;
  y = y * r + 1.0 / 3628800.0;
  y = y * r + 1.0 / 362880.0;
  y = y * r + 1.0 / 40320.0;
  y = y * r + 1.0 / 5040.0;
  y = y * r + 1.0 / 720.0;
  y = y * r + 1.0 / 120.0;
  y = y * r + 1.0 / 24.0;
  y = y * r + 1.0 / 6.0;
  y = y * r + 0.5;
  y = y * r + 1.0;
  y = y * r + 1.0;
  const Lanes<double> power = double_of_bits(convert<u64>(whole + i64(1023)) << 52);
  return choose(x < -708.0, Lanes<double>(0.0), y * power);
}

// The same for float32 where |x| <= 80.
DEVICE Lanes<float> exponential(Lanes<float> x) {
  const Lanes<int> whole = nearest_int(x * 1.4426950408889634f);
  const Lanes<float> k = convert<float>(whole);
  const Lanes<float> r = (x - k * 0.693359375f) - k * -2.12194440e-4f;
  Lanes<float> y = float(1.0 / 5040.0);
  y = y * r + float(1.0 / 720.0);
  y = y * r + float(1.0 / 120.0);
  y = y * r + float(1.0 / 24.0);
  y = y * r + float(1.0 / 6.0);
  y = y * r + 0.5f;
  y = y * r + 1.f;
  y = y * r + 1.f;
  return y * float_of_bits(convert<u32>(whole + 127) << 23);
}

// log(x) to two units of rounding, -infinity of 0, NaN of NaN; not for negative numbers.
DEVICE Lanes<double> logarithm(Lanes<double> x) {
  // Numbers below the normal ones are brought up by 2^54.
  const Lanes<bool> low = x < 2.2250738585072014e-308;
  const Lanes<i64> bits = convert<i64>(bits_of(choose(low, x * 18014398509481984.0, x)));
  // x = 2^k y with y from sqrt(1/2) to sqrt(2); log y = 2 artanh((y - 1) / (y + 1)).
  const Lanes<i64> whole = (bits - 0x3fe6a09e667f3bcdll) >> 52;
  const Lanes<double> y = double_of_bits(convert<u64>(bits - (whole << 52)));
  const Lanes<double> k = convert<double>(whole) - choose(low, Lanes<double>(54.0), Lanes<double>(0.0));
  const Lanes<double> t = (y - 1.0) / (y + 1.0);
  const Lanes<double> square = t * t;
  Lanes<double> sum = 1.0 / 23.0;
  sum = sum * square + 1.0 / 21.0;
  sum = sum * square + 1.0 / 19.0;
  sum = sum * square + 1.0 / 17.0;
  sum = sum * square + 1.0 / 15.0;
  sum = sum * square + 1.0 / 13.0;
  sum = sum * square + 1.0 / 11.0;
  sum = sum * square + 1.0 / 9.0;
  sum = sum * square + 1.0 / 7.0;
  sum = sum * square + 1.0 / 5.0;
  sum = sum * square + 1.0 / 3.0;
  const Lanes<double> twice = t + t;
  const Lanes<double> found = k * 6.93145751953125e-1 + (k * 1.42860682030941723212e-6 + twice * sum * square + twice);
  const Lanes<double> special = choose(x == 0.0, Lanes<double>(-infinity()), x);
  return choose(x > 0.0 && x < infinity(), found, special);
}

// log(1 + x) for x >= 0, also where 1 + x has lost x.
DEVICE Lanes<double> logarithm_of_one_and(Lanes<double> x) {
  const Lanes<double> sum = x + 1.0;
  const Lanes<bool> lost = sum == 1.0;
  return choose(lost, x, logarithm(sum) * (x / choose(lost, Lanes<double>(1.0), sum - 1.0)));
}

// The same of a number that all lanes share.
DEVICE double exponential_of_one(double x) { return from_lane(exponential(Lanes<double>(x)), 0); }
DEVICE double logarithm_of_one(double x) { return from_lane(logarithm(Lanes<double>(x)), 0); }
