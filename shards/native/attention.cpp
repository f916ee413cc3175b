// Softmax attention in tiles of keys, with the running maximum and sum of Milakov and Gimelshein
// (2018); keys and values are read where they lie, through a sequence's block table or packed.
//
// A row is one query head of one token. The query heads of a key head share its tiles, and so do
// neighbouring tokens. Tiles start at multiples of KEYS from the sequence's first key, so a row
// adds up in the same order however the sequence was cut into steps.
#include <cmath>
#include <vector>

#include "operations.h"
#include "vector.h"

namespace {

constexpr int64_t PAIR = 2 * W;       // keys whose scores are added up at once
constexpr int64_t KEYS = 4 * PAIR;    // of a tile, for which maximum and sum are updated once
constexpr int64_t MOST_ROWS = 256;    // that share a transposed tile of keys
constexpr int64_t GROUP = 32;         // of them, that take a tile in turn
constexpr int SCORE_ROWS = W == 16 ? 8 : 4;
constexpr int VALUE_ROWS = 4;
constexpr int CHANNELS = W == 16 ? 4 : 2;  // registers of channels added up at once
constexpr float NEVER = -std::numeric_limits<float>::infinity();

// Keys and values of one key head, position j at row `at(j)`.
struct Past {
  const float *keys, *values;
  int64_t stride;
  const int64_t* table;  // null: row j
  int64_t block_size;

  int64_t at(int64_t j) const {
    return (table ? table[j / block_size] * block_size + j % block_size : j) * stride;
  }
};

// One row: where its query lies, where its result goes, how many keys it sees.
struct Row {
  const float* query;
  float* out;
  int64_t seen;
};

// Working memory of a thread; `width` is the channels filled up to whole registers.
struct Desk {
  std::vector<float> queries, sums, keys, values, scores, top, total;
  std::vector<const float*> value_rows;

  void lay(int64_t width) {
    queries.resize(MOST_ROWS * width);
    sums.assign(MOST_ROWS * width, 0.0f);
    keys.resize(KEYS * width);
    values.resize(KEYS * width);
    scores.resize(GROUP * KEYS);
    top.assign(MOST_ROWS, NEVER);
    total.assign(MOST_ROWS, 0.0f);
    value_rows.resize(KEYS);
  }
};

// Keys [first, first + count) as pairs of [width, PAIR], and where each position's values lie.
// With `gather`, and where channels are filled up, values are copied to the desk: those of a source
// lie so far apart that few of its rows fit a first-level cache together.
void fetch(Desk& desk, const Past& past, int64_t first, int64_t count, int64_t dim, int64_t width,
           bool gather) {
  const float* key_rows[KEYS];
  for (int64_t j = 0; j < count; j++) {
    const int64_t at = past.at(first + j);
    key_rows[j] = past.keys + at;
    const float* values = past.values + at;
    if (gather || dim != width) {
      float* padded = desk.values.data() + j * width;
      std::memcpy(padded, values, sizeof(float) * dim);
      std::memset(padded + dim, 0, sizeof(float) * (width - dim));
      values = padded;
    }
    desk.value_rows[j] = values;
  }
  for (int64_t j = 0; j < count; j += W) {
    float* to = desk.keys.data() + j / PAIR * PAIR * width + j % PAIR;
    for (int64_t d = 0; d < width; d += W) {
      V square[W];
      for (int i = 0; i < W; i++)
        square[i] = j + i < count ? load_part(key_rows[j + i] + d, dim - d) : V{};
      transpose(square);
      for (int i = 0; i < W; i++) store(to + (d + i) * PAIR, square[i]);
    }
  }
}

template <int M>
inline void score(Desk& desk, int64_t tile_row, int64_t row, int64_t count, int64_t width) {
  const float *q = desk.queries.data() + row * width, *k = desk.keys.data();
  for (int64_t j = 0; j < count; j += PAIR, k += PAIR * width) {
    V sums[M][2] = {};
    for (int64_t d = 0; d < width; d++) {
      const V low = load(k + d * PAIR), high = load(k + d * PAIR + W);
      for (int m = 0; m < M; m++) {
        const V channel = splat(q[m * width + d]);
        sums[m][0] = fused(channel, low, sums[m][0]);
        sums[m][1] = fused(channel, high, sums[m][1]);
      }
    }
    for (int m = 0; m < M; m++) {
      store(desk.scores.data() + (tile_row + m) * KEYS + j, sums[m][0]);
      store(desk.scores.data() + (tile_row + m) * KEYS + j + W, sums[m][1]);
    }
  }
}

// Turns the scores of row `m` of the tile into weights, of which `count` are read; what was summed
// before is scaled to match. Keys that the row does not see weigh nothing, which adds nothing.
inline void weigh(Desk& desk, int64_t m, int64_t row, int64_t seen, int64_t count,
                  int64_t width) {
  float* scores = desk.scores.data() + m * KEYS;
  if (seen > KEYS) seen = KEYS;
  if (seen < 0) seen = 0;
  const int64_t stop = (seen + PAIR - 1) / PAIR * PAIR;
  for (int64_t j = seen; j < stop; j++) scores[j] = NEVER;
  for (int64_t j = stop; j < count; j += W) store(scores + j, V{});
  if (stop == 0) return;
  V most = load(scores), most_high = load(scores + W);
  for (int64_t j = PAIR; j < stop; j += PAIR) {
    most = larger(most, load(scores + j));
    most_high = larger(most_high, load(scores + j + W));
  }
  const float here = maximum(larger(most, most_high)), before = desk.top[row];
  const float top = here > before ? here : before;
  V low = {}, high = {};
  for (int64_t j = 0; j < stop; j += PAIR) {
    const V p = fading(load(scores + j) - top), q = fading(load(scores + j + W) - top);
    store(scores + j, p);
    store(scores + j + W, q);
    low += p;
    high += q;
  }
  const float added = sum(low + high);
  if (top == before) {
    desk.total[row] += added;
    return;
  }
  const float fade = fading(splat(before - top))[0];
  desk.top[row] = top;
  desk.total[row] = desk.total[row] * fade + added;
  float* sums = desk.sums.data() + row * width;
  for (int64_t d = 0; d < width; d += W) store(sums + d, load(sums + d) * fade);
}

template <int M, int C>
inline void add_values(Desk& desk, int64_t tile_row, int64_t row, int64_t count, int64_t d,
                       int64_t width) {
  float* to = desk.sums.data() + row * width + d;
  const float* weights = desk.scores.data() + tile_row * KEYS;
  V sums[M][C];
  for (int m = 0; m < M; m++)
    for (int c = 0; c < C; c++) sums[m][c] = load(to + m * width + c * W);
  for (int64_t j = 0; j < count; j++) {
    const float* values = desk.value_rows[j] + d;
    for (int c = 0; c < C; c++) {
      const V v = load(values + c * W);
      for (int m = 0; m < M; m++) sums[m][c] = fused(v, splat(weights[m * KEYS + j]), sums[m][c]);
    }
  }
  for (int m = 0; m < M; m++)
    for (int c = 0; c < C; c++) store(to + m * width + c * W, sums[m][c]);
}

template <int M>
inline void add_values(Desk& desk, int64_t tile_row, int64_t row, int64_t count, int64_t width) {
  static_assert(CHANNELS <= 4, "a case for every number of registers");
  for (int64_t d = 0, taken; d < width; d += taken * W) {
    // As evenly as they go: five registers are three and two.
    const int64_t left = (width - d) / W, parts = (left + CHANNELS - 1) / CHANNELS;
    taken = (left + parts - 1) / parts;
    switch (taken) {
      case 1: add_values<M, 1>(desk, tile_row, row, count, d, width); break;
      case 2: add_values<M, 2>(desk, tile_row, row, count, d, width); break;
      case 3: add_values<M, 3>(desk, tile_row, row, count, d, width); break;
      default: add_values<M, CHANNELS>(desk, tile_row, row, count, d, width);
    }
  }
}

inline void score(Desk& desk, int64_t tile_row, int64_t row, int64_t rows, int64_t count,
                  int64_t width) {
  switch (rows) {
    case 1: return score<1>(desk, tile_row, row, count, width);
    case 2: return score<2>(desk, tile_row, row, count, width);
    case 3: return score<3>(desk, tile_row, row, count, width);
    case 4: return score<4>(desk, tile_row, row, count, width);
    case 5: return score<5>(desk, tile_row, row, count, width);
    case 6: return score<6>(desk, tile_row, row, count, width);
    case 7: return score<7>(desk, tile_row, row, count, width);
    default: return score<SCORE_ROWS>(desk, tile_row, row, count, width);
  }
}

inline void add_values(Desk& desk, int64_t tile_row, int64_t row, int64_t rows, int64_t count,
                       int64_t width) {
  switch (rows) {
    case 1: return add_values<1>(desk, tile_row, row, count, width);
    case 2: return add_values<2>(desk, tile_row, row, count, width);
    case 3: return add_values<3>(desk, tile_row, row, count, width);
    default: return add_values<VALUE_ROWS>(desk, tile_row, row, count, width);
  }
}

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// A tile of keys, from `first` on, for rows [start, stop): first all of its keys, then all of its
// values, so that either stays in the first-level cache.
inline void attend(Desk& desk, const Row* rows, int64_t start, int64_t stop, int64_t first,
                   int64_t width) {
  int64_t keys[GROUP];  // that a row or one of its companions sees
  for (int64_t r = start; r < stop; r += SCORE_ROWS) {
    const int64_t together = least(SCORE_ROWS, stop - r);
    const int64_t seen = least(KEYS, rows[r + together - 1].seen - first);
    for (int64_t m = 0; m < together; m++) keys[r - start + m] = seen;
    if (seen > 0) score(desk, r - start, r, together, seen, width);
  }
  for (int64_t r = start; r < stop; r++)
    if (keys[r - start] > 0)
      weigh(desk, r - start, r, rows[r].seen - first, keys[r - start], width);
  for (int64_t r = start; r < stop; r += VALUE_ROWS)
    if (keys[r - start] > 0)
      add_values(desk, r - start, r, least(VALUE_ROWS, stop - r), keys[r - start], width);
}

// Rows of one key head; `seen` does not fall from one row to the next. Not inlined: where the
// compiler knows the desk for a thread's own, it asks for its address again at every use.
__attribute__((noinline)) void attend(Desk& desk, const Row* rows, int64_t count,
                                      const Past& past, int64_t dim) {
  const int64_t width = (dim + W - 1) / W * W;
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  desk.lay(width);
  for (int64_t r = 0; r < count; r++)
    for (int64_t d = 0; d < width; d += W)
      store(desk.queries.data() + r * width + d, load_part(rows[r].query + d, dim - d) * scale);

  const int64_t length = rows[count - 1].seen;
  for (int64_t first = 0; first < length; first += KEYS) {
    fetch(desk, past, first, least(KEYS, length - first), dim, width, count > SCORE_ROWS);
    for (int64_t r = 0; r < count; r += GROUP)
      attend(desk, rows, r, least(r + GROUP, count), first, width);
  }
  for (int64_t r = 0; r < count; r++) {
    float* sums = desk.sums.data() + r * width;
    for (int64_t d = 0; d < width; d += W) store(sums + d, load(sums + d) / desk.total[r]);
    std::memcpy(rows[r].out, sums, sizeof(float) * dim);
  }
}

}  // namespace

// One sequence or picture: its rows of q and out [first, first + count), and what they look at.
struct Span {
  int64_t first, count, length;  // length: keys that the last row sees
  int64_t table;                 // where its blocks begin in `tables`, or -1: packed from `first`
};

// q [T, q_stride], heads one after the other -> out [T, heads, dim].
//
// keys and values: rows of `kv_stride` floats, key heads one after the other. `causal` is 0 where
// every row of a span sees its whole length.
extern "C" void attention(const float* q, int64_t q_stride, const float* keys, const float* values,
                          int64_t kv_stride, const int64_t* tables, int64_t block_size,
                          const Span* spans, int64_t count, int64_t heads, int64_t kv_heads,
                          int64_t dim, int64_t causal, float* out, int64_t threads) {
  const int64_t group = heads / kv_heads;
  const int64_t tokens = MOST_ROWS / group > 0 ? MOST_ROWS / group : 1;
  struct Unit {
    int64_t span, head, token;
  };
  std::vector<Unit> units;
  for (int64_t s = 0; s < count; s++)
    // Later tokens see more: begun first, they leave the short ones to even out the end.
    for (int64_t t = (spans[s].count - 1) / tokens * tokens; t >= 0; t -= tokens)
      for (int64_t head = 0; head < kv_heads; head++) units.push_back({s, head, t});

  const int64_t total = static_cast<int64_t>(units.size());
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1 && total > 1)
  for (int64_t u = 0; u < total; u++) {
    static thread_local Desk desk;
    const Unit unit = units[u];
    const Span& span = spans[unit.span];
    const bool paged = span.table >= 0;
    const int64_t skipped = (paged ? 0 : span.first * kv_stride) + unit.head * dim;
    const Past past{keys + skipped, values + skipped, kv_stride,
                    paged ? tables + span.table : nullptr, block_size};
    Row rows[MOST_ROWS];
    int64_t filled = 0;
    for (int64_t t = unit.token; t < least(unit.token + tokens, span.count); t++) {
      const int64_t seen = causal ? span.length - span.count + t + 1 : span.length;
      for (int64_t g = 0; g < group; g++) {
        const int64_t head = unit.head * group + g;
        rows[filled++] = {q + (span.first + t) * q_stride + head * dim,
                          out + ((span.first + t) * heads + head) * dim, seen};
      }
    }
    attend(desk, rows, filled, past, dim);
  }
}
