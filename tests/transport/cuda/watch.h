#ifdef WATCHED
// What happened to four bytes of memory since the last barrier.
struct Seen {
  int epoch = 0;
  int writer = -1;    // lane
  u32 readers = 0;    // bits of lanes
  u32 atomics = 0;    // bits of lanes that wrote as lanes may together
  bool known = false; // written at all
};
struct Watch {
  std::vector<Seen> shared;
  std::unordered_map<uintptr_t, Seen> elsewhere;  // outputs
  uintptr_t first = 0;
  int epoch = 1;
  void begin(char* memory, size_t bytes) {
    first = (uintptr_t)memory;
    shared.assign(bytes / 4, Seen());
    elsewhere.clear();
    epoch = 1;
  }
  bool inside(uintptr_t at) const { return at >= first && at < first + 4 * shared.size(); }
  Seen& fresh(Seen& seen) {
    if (seen.epoch != epoch) {
      seen.epoch = epoch;
      seen.writer = -1;
      seen.readers = seen.atomics = 0;
    }
    return seen;
  }
  void complain(const char* what, uintptr_t at, int lane, int other) {
    if (!fault.empty()) return;
    fault = std::string(what) + ": lanes " + std::to_string(lane) + " and " + std::to_string(other) +
            (inside(at) ? ", byte " + std::to_string(at - first) + " of the warp's memory" : ", in an output");
  }
  void others(u32 lanes, const char* what, uintptr_t at, int lane) {
    if (lanes & ~(1u << lane)) complain(what, at, lane, lowest(lanes & ~(1u << lane)));
  }
  void join(const void* p, int lane) {
    Seen& seen = fresh(inside((uintptr_t)p) ? shared[((uintptr_t)p - first) / 4] : elsewhere[(uintptr_t)p]);
    if (seen.writer >= 0 && seen.writer != lane) complain("two writers", (uintptr_t)p, lane, seen.writer);
    others(seen.readers, "written before a barrier", (uintptr_t)p, lane);
    seen.atomics |= 1u << lane;
  }
  void read(const void* p, size_t bytes, int lane) {
    for (uintptr_t at = (uintptr_t)p; at < (uintptr_t)p + bytes; at += 4) {
      if (!inside(at)) {
        const auto found = elsewhere.find(at);
        if (found != elsewhere.end() && fresh(found->second).writer >= 0 && found->second.writer != lane)
          complain("read before a barrier", at, lane, found->second.writer);
        continue;
      }
      Seen& seen = fresh(shared[(at - first) / 4]);
      if (!seen.known) complain("read before it was written", at, lane, lane);
      if (seen.writer >= 0 && seen.writer != lane) complain("read before a barrier", at, lane, seen.writer);
      others(seen.atomics, "read before a barrier", at, lane);
      seen.readers |= 1u << lane;
    }
  }
  void write(const void* p, size_t bytes, int lane) {
    for (uintptr_t at = (uintptr_t)p; at < (uintptr_t)p + bytes; at += 4) {
      Seen& seen = fresh(inside(at) ? shared[(at - first) / 4] : elsewhere[at]);
      if (seen.writer >= 0 && seen.writer != lane) complain("two writers", at, lane, seen.writer);
      others(seen.readers, "written before a barrier", at, lane);
      others(seen.atomics, "two writers", at, lane);
      seen.writer = lane;
      seen.known = true;
    }
  }
};
static Watch watch;
#define READ(P, LANE) watch.read(P, sizeof *(P), LANE)
#define WRITE(P, LANE) watch.write(P, sizeof *(P), LANE)
#define JOIN(P, LANE) watch.join(P, LANE)
inline void sync_lanes() {
  COUNT(1);
  watch.epoch++;
}
#else
#define READ(P, LANE)
#define WRITE(P, LANE)
#define JOIN(P, LANE)
inline void sync_lanes() { COUNT(1); }
#endif

