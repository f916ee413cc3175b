// Softmax attention in tiles of keys, with the running maximum and sum of Milakov and Gimelshein
// (2018); keys and values are read where they lie, through a sequence's block table or packed.
//
// A row is one query head of one token. The query heads of a key head share its tiles, and so do
// neighbouring tokens. Tiles start at multiples of KEYS from the sequence's first key, so a row
// adds up in the same order however the sequence was cut into steps.
#include <cmath>
#include <vector>

#include "vector.h"

namespace {

constexpr int PAIR = 2;               // registers of keys a tile is wide
constexpr int64_t KEYS = PAIR * W;
constexpr int64_t MOST_ROWS = 128;    // that share a transposed tile of keys
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
    keys.resize(width * KEYS);
    values.resize(KEYS * width);
    scores.resize(SCORE_ROWS * KEYS);
    top.assign(MOST_ROWS, NEVER);
    total.assign(MOST_ROWS, 0.0f);
    value_rows.resize(KEYS);
  }
};

// One stage of a butterfly that swaps lane bit S with register bit S.
template <int S>
inline void swap_bit(V (&v)[W]) {
  VI low, high;
  for (int j = 0; j < W; j++) {
    low[j] = j & S ? W + j - S : j;
    high[j] = j & S ? W + j : j + S;
  }
  for (int i = 0; i < W; i++) {
    if (i & S) continue;
    const V a = v[i], b = v[i + S];
    v[i] = __builtin_shuffle(a, b, low);
    v[i + S] = __builtin_shuffle(a, b, high);
  }
}

inline void transpose(V (&v)[W]) {
  if constexpr (W == 16) swap_bit<8>(v);
  swap_bit<4>(v);
  swap_bit<2>(v);
  swap_bit<1>(v);
}

// Keys [first, first + count) as [width, KEYS], and where each position's values lie.
void fetch(Desk& desk, const Past& past, int64_t first, int64_t count, int64_t dim,
           int64_t width) {
  const float* key_rows[KEYS];
  for (int64_t j = 0; j < count; j++) {
    const int64_t at = past.at(first + j);
    key_rows[j] = past.keys + at;
    const float* values = past.values + at;
    if (dim != width) {
      float* padded = desk.values.data() + j * width;
      std::memcpy(padded, values, sizeof(float) * dim);
      std::memset(padded + dim, 0, sizeof(float) * (width - dim));
      values = padded;
    }
    desk.value_rows[j] = values;
  }
  for (int64_t part = 0; part < PAIR; part++) {
    for (int64_t d = 0; d < width; d += W) {
      V square[W];
      for (int i = 0; i < W; i++) {
        const int64_t j = part * W + i;
        square[i] = j < count ? load_part(key_rows[j] + d, dim - d) : V{};
      }
      transpose(square);
      for (int i = 0; i < W; i++) store(desk.keys.data() + (d + i) * KEYS + part * W, square[i]);
    }
  }
}

template <int M>
inline void score(Desk& desk, int64_t row, int64_t width) {
  const float *q = desk.queries.data() + row * width, *k = desk.keys.data();
  V sums[M][PAIR] = {};
  for (int64_t d = 0; d < width; d++) {
    const V low = load(k + d * KEYS), high = load(k + d * KEYS + W);
    for (int m = 0; m < M; m++) {
      const V channel = splat(q[m * width + d]);
      sums[m][0] = fused(channel, low, sums[m][0]);
      sums[m][1] = fused(channel, high, sums[m][1]);
    }
  }
  for (int m = 0; m < M; m++) {
    store(desk.scores.data() + m * KEYS, sums[m][0]);
    store(desk.scores.data() + m * KEYS + W, sums[m][1]);
  }
}

// Turns the scores of row `m` of the tile into weights; what was summed before is scaled to match.
inline void weigh(Desk& desk, int64_t m, int64_t row, int64_t seen, int64_t width) {
  float* scores = desk.scores.data() + m * KEYS;
  for (int64_t j = seen < 0 ? 0 : seen; j < KEYS; j++) scores[j] = NEVER;
  const V low = load(scores), high = load(scores + W);
  const float here = maximum(larger(low, high)), before = desk.top[row];
  const float top = here > before ? here : before;
  const V p = exponential(low - top), q = exponential(high - top);
  store(scores, p);
  store(scores + W, q);
  if (top == before) {
    desk.total[row] += sum(p + q);
    return;
  }
  const float fade = exponential(splat(before - top))[0];
  desk.top[row] = top;
  desk.total[row] = desk.total[row] * fade + sum(p + q);
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
  int64_t d = 0;
  for (; d + CHANNELS * W <= width; d += CHANNELS * W)
    add_values<M, CHANNELS>(desk, tile_row, row, count, d, width);
  for (; d < width; d += W) add_values<M, 1>(desk, tile_row, row, count, d, width);
}

inline void score(Desk& desk, int64_t row, int64_t rows, int64_t width) {
  switch (rows) {
    case 1: return score<1>(desk, row, width);
    case 2: return score<2>(desk, row, width);
    case 3: return score<3>(desk, row, width);
    case 4: return score<4>(desk, row, width);
    case 5: return score<5>(desk, row, width);
    case 6: return score<6>(desk, row, width);
    case 7: return score<7>(desk, row, width);
    default: return score<SCORE_ROWS>(desk, row, width);
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

// Rows of one key head; `seen` does not fall from one row to the next.
void attend(const Row* rows, int64_t count, const Past& past, int64_t dim) {
  static thread_local Desk desk;
  const int64_t width = (dim + W - 1) / W * W;
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  desk.lay(width);
  for (int64_t r = 0; r < count; r++)
    for (int64_t d = 0; d < width; d++)
      desk.queries[r * width + d] = d < dim ? rows[r].query[d] * scale : 0.0f;

  const int64_t length = rows[count - 1].seen;
  for (int64_t first = 0; first < length; first += KEYS) {
    fetch(desk, past, first, least(KEYS, length - first), dim, width);
    for (int64_t r = 0; r < count; r += SCORE_ROWS) {
      const int64_t together = least(SCORE_ROWS, count - r);
      const int64_t keys = least(KEYS, rows[r + together - 1].seen - first);
      if (keys <= 0) continue;
      score(desk, r, together, width);
      for (int64_t m = 0; m < together; m++)
        weigh(desk, m, r + m, rows[r + m].seen - first, width);
      for (int64_t m = 0; m < together; m += VALUE_ROWS)
        add_values(desk, m, r + m, least(VALUE_ROWS, together - m), keys, width);
    }
  }
  for (int64_t r = 0; r < count; r++)
    for (int64_t d = 0; d < dim; d++)
      rows[r].out[d] = desk.sums[r * width + d] / desk.total[r];
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
    attend(rows, filled, past, dim);
  }
}
