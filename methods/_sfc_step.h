// The two halves of an SGD step of the structured FC around the transport kernel, as otfew/methods/_sfc_kernel.py has
// them for the CPU; names and shapes are its. Posing takes a warp a problem, moving a warp a row of class nodes.
#pragma once
#include "elementary.h"
#include "entry.h"

// One struct for both, mirrored by _sfc_device.py. Pointers are to the device's memory, all arrays contiguous;
// L = images * m, R = way * n.
struct FitStep {
  const void* gram;    // (E, L, L) in the support's dtype, as are the next two
  const void* length;  // (E, L)
  const void* mean;    // (E, L)
  void *dots, *dots_step, *share, *share_step;  // (E, R, L) in the support's dtype
  double *own, *node_mean;                      // (2, E, R)
  double* square;                               // (3, E, R)
  const i64* labels;                            // (E, images)
  const i64* chosen;                            // (batch,) images of this step
  void* cost;                                   // (E, batch, way, n, m) in the support's dtype
  double *d, *d_slope;                          // (E, batch, way, n); null where nodes count alike
  double *s, *s_slope;                          // (E, batch, way, m)
  const int *rows, *cols;                       // (E, batch, way, n + m - 1): what the transport kernel found
  const double *flow, *value, *f, *g;
  double channels, least, eps, temperature, lr, keep, take;
  int problems;  // E * batch * way to pose, E * R to move
  int episodes, way, n, m, images, batch;
  int weighted;  // whether the weights have a gradient
};

// Where a lane's element is, of those from `first` on.
struct Some {
  Lanes<int> at;
  Lanes<bool> in;
};
DEVICE Some some(int first, int size) {
  const Lanes<int> at = lane_index() + first;
  const Lanes<bool> in = at < size;
  return {choose(in, at, Lanes<int>(0)), in};
}
// Zero where there is none.
template <class T>
DEVICE Lanes<T> load_of(const T* from, const Some& x) {
  return load_if(from, x.at, x.in, Lanes<T>(T(0)));
}
template <class T>
DEVICE Lanes<double> load_double(const T* from, const Some& x) {
  return convert<double>(load_of(from, x));
}

// Turn raw products into weights relu(x) + eps of total 1, in place, and write [x > 0] / total.
DEVICE void normalise(double* weights, double* slopes, int size, double eps) {
  Lanes<double> sum = 0.0;
  for (int x = 0; x < size; x += 32) {
    const Some node = some(x, size);
    const Lanes<double> raw = load_double(weights, node);
    sum = sum + choose(node.in, choose(raw > 0.0, raw, Lanes<double>(0.0)) + eps, Lanes<double>(0.0));
  }
  const double total = warp_sum(sum);
  for (int x = 0; x < size; x += 32) {
    const Some node = some(x, size);
    const Lanes<double> raw = load_double(weights, node);
    const Lanes<bool> positive = raw > 0.0;
    store(weights, node.at, (choose(positive, raw, Lanes<double>(0.0)) + eps) / total, node.in);
    store(slopes, node.at, choose(positive, Lanes<double>(1.0 / total), Lanes<double>(0.0)), node.in);
  }
}

template <class T>
DEVICE void pose(const FitStep& fit, int k) {
  const int n = fit.n, m = fit.m, size = fit.images * m, rows = fit.way * n;
  const int w = k % fit.way, e = k / (fit.way * fit.batch);
  const int start = (int)load_one(fit.chosen, k / fit.way % fit.batch) * m;
  const i64 first_row = (i64)e * rows + w * n;
  const T* dots = (const T*)fit.dots + first_row * size + start;
  const T* length = (const T*)fit.length + (i64)e * size + start;
  const T* mean = (const T*)fit.mean + (i64)e * size + start;
  T* cost = (T*)fit.cost + (i64)k * n * m;
  const bool weigh = fit.d != nullptr;
  double* d = weigh ? fit.d + (i64)k * n : nullptr;
  double* s = weigh ? fit.s + (i64)k * m : nullptr;
  Lanes<double> means = 0.0, class_means = 0.0;
  for (int x = 0; x < m; x += 32) means = means + load_double(mean, some(x, m));
  for (int x = 0; x < n; x += 32) class_means = class_means + load_double(fit.node_mean + first_row, some(x, n));
  const double average = warp_sum(means) * (fit.channels / m), class_mean = warp_sum(class_means) * fit.channels;
  for (int j = 0; j < n; j++) {
    const double square = load_one(fit.square, first_row + j);
    const T scale = (T)(1.0 / larger(square_root(larger(square, 0.0)), fit.least));
    Lanes<double> raw = 0.0;
    for (int x = 0; x < m; x += 32) {
      const Some node = some(x, m);
      const Lanes<T> dot = load_of(dots + j * size, node);
      store(cost, node.at + j * m, T(1) - dot * scale, node.in);
      raw = raw + convert<double>(dot) * load_double(length, node);
    }
    const double products = warp_sum(raw) / m + average * load_one(fit.node_mean, first_row + j);
    if (weigh) store(d, Lanes<int>(j), Lanes<double>(products), lane_index() == 0);
  }
  if (!weigh) return;
  for (int x = 0; x < m; x += 32) {
    const Some node = some(x, m);
    Lanes<double> sum = 0.0;
    for (int j = 0; j < n; j++) sum = sum + load_double(dots + j * size, node);
    store(s, node.at, (sum * load_double(length, node) + load_double(mean, node) * class_mean) / n, node.in);
  }
  sync_lanes();
  normalise(d, fit.d_slope + (i64)k * n, n, fit.eps);
  normalise(s, fit.s_slope + (i64)k * m, m, fit.eps);
}

// The warp's memory: a row of a plan, and what pulls the warp's row of class nodes.
template <class T>
struct Pulls {
  double* plan;  // [m]
  T* values;     // [batch * m]
  int* columns;  // [batch * m] among the L nodes of the support
  DEVICE static int bytes(const FitStep& fit) {
    return (8 * fit.m + (int)(sizeof(T) + 4) * fit.batch * fit.m + 15) / 16 * 16;
  }
  DEVICE Pulls(char* room, const FitStep& fit) {
    plan = reinterpret_cast<double*>(room);
    values = reinterpret_cast<T*>(plan + fit.m);
    columns = reinterpret_cast<int*>(values + fit.batch * fit.m);
  }
};

// Slope of the loss in the score of class w: of the softmax over classes of temperature * (1 - value).
DEVICE double pull_of(const FitStep& fit, i64 first, int w, bool target) {
  Lanes<double> most = -infinity();
  for (int x = 0; x < fit.way; x += 32) {
    const Some one = some(x, fit.way);
    most = choose(one.in, larger(most, (1.0 - load_double(fit.value + first, one)) * fit.temperature), most);
  }
  const double top = warp_largest(most);
  Lanes<double> sum = 0.0;
  for (int x = 0; x < fit.way; x += 32) {
    const Some one = some(x, fit.way);
    const Lanes<double> odds = exponential((1.0 - load_double(fit.value + first, one)) * fit.temperature - top);
    sum = sum + choose(one.in, odds, Lanes<double>(0.0));
  }
  const double own = exponential_of_one((1.0 - load_one(fit.value, first + w)) * fit.temperature - top);
  return (own / warp_sum(sum) - (target ? 1.0 : 0.0)) * (fit.temperature / fit.batch);
}

// Slope of the loss in raw weights, through potentials: what a node's differs from their mean.
DEVICE double mean_of(const double* potentials, const double* weights, int size) {
  Lanes<double> sum = 0.0;
  for (int x = 0; x < size; x += 32) {
    const Some node = some(x, size);
    sum = sum + load_double(potentials, node) * load_double(weights, node);
  }
  return warp_sum(sum);
}

template <class T>
struct Row {
  const FitStep& fit;
  const Pulls<T> pulls;
  const int e, j, w, size;
  const T *gram, *length, *mean;
  T* dots;
  int count;  // of what pulls
  double along, mean_gradient;

  DEVICE Row(const FitStep& fit, char* room, int k)
      : fit(fit),
        pulls(room, fit),
        e(k / (fit.way * fit.n)),
        j(k % fit.n),
        w(k / fit.n % fit.way),
        size(fit.images * fit.m),
        gram((const T*)fit.gram + (i64)e * size * size),
        length((const T*)fit.length + (i64)e * size),
        mean((const T*)fit.mean + (i64)e * size),
        dots((T*)fit.dots + (i64)k * size),
        count(0) {}

  // The row's part of the plan of problem p, dense.
  DEVICE void read_plan(i64 p) {
    const int arcs = fit.n + fit.m - 1;
    sync_lanes();
    for (int x = 0; x < fit.m; x += 32)
      store(pulls.plan, lane_index() + x, Lanes<double>(0.0), lane_index() + x < fit.m);
    sync_lanes();
    for (int x = 0; x < arcs; x += 32) {
      const Some arc = some(x, arcs);
      const Lanes<double> flow = load_of(fit.flow + p * arcs, arc);
      const Lanes<bool> ours = load_of(fit.rows + p * arcs, arc) == j && flow != 0.0;
      store(pulls.plan, load_of(fit.cols + p * arcs, arc), flow, ours);
    }
    sync_lanes();
  }

  // List what pulls: the gradient is sum_k values[k] * u_columns[k] - along * v.
  DEVICE void list(double scale) {
    const int n = fit.n, m = fit.m;
    Lanes<double> back = 0.0, means = 0.0;
    for (int b = 0; b < fit.batch; b++) {
      const int image = (int)load_one(fit.chosen, b), start = image * m;
      const i64 first = ((i64)e * fit.batch + b) * fit.way, p = first + w;
      const double pull = pull_of(fit, first, w, load_one(fit.labels, (i64)e * fit.images + image) == w);
      double by_class = 0.0, middle = 0.0;
      if (fit.weighted) {
        const double centre = mean_of(fit.f + p * n, fit.d + p * n, n);
        by_class = -pull * (load_one(fit.f, p * n + j) - centre) * load_one(fit.d_slope, p * n + j) / m;
        middle = mean_of(fit.g + p * m, fit.s + p * m, m);
      }
      read_plan(p);
      for (int x = 0; x < m; x += 32) {
        const Some node = some(x, m);
        Lanes<double> value = load_double(pulls.plan, node) * (pull * scale);
        back = back + value * load_double(dots + start, node);
        if (fit.weighted) {
          const Lanes<double> by_image =
              (load_double(fit.g + p * m, node) - middle) * load_double(fit.s_slope + p * m, node) * (-pull / n);
          const Lanes<double> raw = choose(node.in, by_image + by_class, Lanes<double>(0.0));
          value = value + raw * load_double(length + start, node);
          means = means + raw * load_double(mean + start, node);
        }
        const Lanes<bool> pulling = node.in && value != 0.0;
        const u32 votes = ballot(pulling);
        const Lanes<int> place = count_bits(((Lanes<u32>(1u) << lane_index()) - 1u) & votes) + count;
        store(pulls.values, place, convert<T>(value), pulling);
        store(pulls.columns, place, node.at + start, pulling);
        count += count_bits(votes);
      }
    }
    sync_lanes();
    along = warp_sum(back) * scale * scale;
    mean_gradient = warp_sum(means);
  }

  // sum_k values[k] * numbers[columns[k]].
  DEVICE double weighed(const T* numbers) {
    Lanes<double> sum = 0.0;
    for (int x = 0; x < count; x += 32) {
      const Some one = some(x, count);
      sum = sum + load_double(pulls.values, one) * load_double(numbers, Some{load_of(pulls.columns, one), one.in});
    }
    return warp_sum(sum);
  }
};

template <class T>
DEVICE void move(const FitStep& fit, int k, char* room) {
  Row<T> row(fit, room, k);
  const i64 all = (i64)fit.episodes * fit.way * fit.n;
  const double square = load_one(fit.square, (i64)k);
  const double least = fit.least, keep = fit.keep, take = fit.take, lr = fit.lr;
  row.list(square > least * least ? 1.0 / square_root(square) : 0.0);
  const int size = row.size, count = row.count;
  T* dots = row.dots;
  T* dots_step = (T*)fit.dots_step + (i64)k * size;
  T* share = (T*)fit.share + (i64)k * size;
  T* share_step = (T*)fit.share_step + (i64)k * size;
  double with_node = row.weighed(dots), with_step = row.weighed(dots_step), with_self = 0.0;
  for (int i = 0; i < count; i++)
    with_self += load_one(row.pulls.values, i) * row.weighed(row.gram + (i64)load_one(row.pulls.columns, i) * size);
  const double along = row.along;
  const double old_cross = load_one(fit.square, all + k), old_step = load_one(fit.square, 2 * all + k);
  const double old_own = load_one(fit.own, (i64)k), own_step = keep * load_one(fit.own, all + k) - take * along * old_own;
  const double mean_step = keep * load_one(fit.node_mean, all + k) + take * row.mean_gradient;
  const double new_mean = load_one(fit.node_mean, (i64)k) - lr * mean_step;
  with_self += along * (along * square - 2.0 * with_node);
  with_node -= along * square;
  with_step -= along * old_cross;
  const double cross = keep * old_cross + take * with_node;
  const double step = keep * keep * old_step + 2.0 * keep * take * with_step + take * take * with_self;
  sync_lanes();
  const Lanes<bool> one = lane_index() == 0;
  store(fit.square, Lanes<i64>(k), Lanes<double>(square - 2.0 * lr * cross + lr * lr * step), one);
  store(fit.square, Lanes<i64>(all + k), Lanes<double>(cross - lr * step), one);
  store(fit.square, Lanes<i64>(2 * all + k), Lanes<double>(step), one);
  store(fit.own, Lanes<i64>(k), Lanes<double>(old_own - lr * own_step), one);
  store(fit.own, Lanes<i64>(all + k), Lanes<double>(own_step), one);
  store(fit.node_mean, Lanes<i64>(k), Lanes<double>(new_mean), one);
  store(fit.node_mean, Lanes<i64>(all + k), Lanes<double>(mean_step), one);
  const T kept = (T)keep, taken = (T)take, shrunk = (T)(take * along), rate = (T)lr;
  for (int x = 0; x < size; x += 32) {
    const Some node = some(x, size);
    Lanes<T> gradient = T(0);
    for (int i = 0; i < count; i++) {
      const T* products = row.gram + (i64)load_one(row.pulls.columns, i) * size;
      gradient = gradient + load_of(products, node) * load_one(row.pulls.values, i);
    }
    const Lanes<T> dot = load_of(dots, node), part = load_of(share, node);
    const Lanes<T> next_dot = load_of(dots_step, node) * kept + gradient * taken - dot * shrunk;
    const Lanes<T> next_part = load_of(share_step, node) * kept - part * shrunk;
    store(dots_step, node.at, next_dot, node.in);
    store(dots, node.at, dot - next_dot * rate, node.in);
    store(share_step, node.at, next_part, node.in);
    store(share, node.at, part - next_part * rate, node.in);
  }
  sync_lanes();
  // Columns are all different: images of a mini-batch are.
  for (int x = 0; x < count; x += 32) {
    const Some pull = some(x, count);
    const Some node = {load_of(row.pulls.columns, pull), pull.in};
    const Lanes<T> added = load_of(row.pulls.values, pull) * taken;
    store(share_step, node.at, load_of(share_step, node) + added, node.in);
    store(share, node.at, load_of(share, node) - added * rate, node.in);
  }
}

#define POSE(NAME, GIVEN) KERNEL(NAME, FitStep, 0, (pose<GIVEN>(problems, k)))
#define MOVE(NAME, GIVEN) KERNEL(NAME, FitStep, (Pulls<GIVEN>::bytes(problems)), (move<GIVEN>(problems, k, memory)))
