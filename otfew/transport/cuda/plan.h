// Plans laid out dense: the gradient in the costs.
#pragma once
#include "arguments.h"
#include "entry.h"

// Zeros first, then the arcs, which are few and at places of their own: one warp writes all of a problem's, so nothing
// is added up and the order does not matter. Of an unsound problem, whose arcs are all at one place, the first speaks.
template <class Given>
DEVICE void lay_out(const PlanTimes& plans, int k) {
  const int arcs = plans.arcs, size = plans.n * plans.m;
  const i64 first = (i64)k * arcs;
  Given* out = (Given*)plans.out + (i64)k * size;
  for (int x = 0; x < size; x += 32) store(out, lane_index() + x, Lanes<Given>(Given(0)), lane_index() + x < size);
  const double grad = plans.grad ? load_one(plans.grad, k * plans.grad_stride) : 1.0;
  sync_lanes();
  for (int x = 0; x < arcs; x += 32) {
    const Lanes<int> arc = lane_index() + x;
    const Lanes<bool> is = arc < arcs;
    const Lanes<i64> at = convert<i64>(choose(is, arc, Lanes<int>(0))) + first;
    const Lanes<double> flow = load(plans.flow, at);
    const Lanes<bool> used = is && flow != 0.0 && (flow == flow || arc == 0);
    store(out, load(plans.rows, at) * plans.m + load(plans.cols, at), convert<Given>(flow * grad), used);
  }
}

#define PLAN(NAME, GIVEN) KERNEL(NAME, PlanTimes, 0, (lay_out<GIVEN>(problems, k)))
