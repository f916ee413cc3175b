// y = x W^T + bias for float32, weights as the checkpoint has them: rows of K inputs, one per output.
//
// An element of y is W sums, each over every W-th input in turn, then added up in sum()'s order. That
// can be had in two ways, and a row's bits are the same in both:
//
//   few rows of x    a register holds the W sums of one element; W streams past once, the next rows
//                    of it fetched while these are used
//   many             a register holds the first of the W sums of W neighbouring outputs, then the
//                    next one; both sides are laid out for that before, which few rows do not repay
#include <array>
#include <utility>
#include <vector>

#include "vector.h"

namespace {

constexpr int ROWS = W == 16 ? 8 : 4;
constexpr int OUTPUTS = 3;
constexpr int64_t AHEAD = 4 * OUTPUTS;            // rows of W
constexpr int64_t FEW = 32;                       // rows of x
constexpr int TALL = W == 16 ? 14 : 6;            // rows of x in a tile of many
constexpr int WIDE = 2 * W;                       // outputs in it
constexpr int SUMS_BITS = W == 16 ? 4 : 3;
constexpr int64_t CHUNK = 448;                    // rows of x laid out at once
constexpr int64_t BLOCK_BYTES = 384 * 1024;       // of W, half a second-level cache
constexpr int64_t WORTH_A_THREAD = 64 * 1024;     // multiplications

struct Product {
  const float *x, *w, *bias;
  float* y;
  int64_t rows, inputs, outputs;
};

template <int M, int R, bool fetch>
inline void tile(const Product& p, int64_t row, int64_t output) {
  const int64_t K = p.inputs;
  const float *x = p.x + row * K, *w = p.w + output * K;
  V sums[M][R] = {};
  int64_t k = 0;
  for (; k + W <= K; k += W) {
    V column[M];
    for (int m = 0; m < M; m++) column[m] = load(x + m * K + k);
    for (int r = 0; r < R; r++) {
      const V weights = load(w + r * K + k);
      if (fetch) __builtin_prefetch(w + (r + AHEAD) * K + k);
      for (int m = 0; m < M; m++) sums[m][r] = fused(column[m], weights, sums[m][r]);
    }
  }
  if (k < K) {  // filled up with zeros
    V column[M];
    for (int m = 0; m < M; m++) column[m] = load_part(x + m * K + k, K - k);
    for (int r = 0; r < R; r++) {
      const V weights = load_part(w + r * K + k, K - k);
      for (int m = 0; m < M; m++) sums[m][r] = fused(column[m], weights, sums[m][r]);
    }
  }
  for (int m = 0; m < M; m++) {
    for (int r = 0; r < R; r++) {
      float total = sum(sums[m][r]);
      if (p.bias) total += p.bias[output + r];
      p.y[(row + m) * p.outputs + output + r] = total;
    }
  }
}

template <int R, bool fetch>
inline void tile(const Product& p, int64_t row, int64_t rows, int64_t output) {
  static_assert(ROWS <= 8, "a case for every number of rows");
  switch (rows) {
    case 1: return tile<1, R, fetch>(p, row, output);
    case 2: return tile<2, R, fetch>(p, row, output);
    case 3: return tile<3, R, fetch>(p, row, output);
    case 4: return tile<4, R, fetch>(p, row, output);
  }
  if constexpr (ROWS == 8) {
    switch (rows) {
      case 5: return tile<5, R, fetch>(p, row, output);
      case 6: return tile<6, R, fetch>(p, row, output);
      case 7: return tile<7, R, fetch>(p, row, output);
      case 8: return tile<8, R, fetch>(p, row, output);
    }
  }
}

// Rows of x from `row` on that go into one tile: `rows` cut as evenly as `most` allows.
inline int64_t tile_rows(int64_t row, int64_t rows, int64_t most) {
  const int64_t left = rows - row, tiles = (left + most - 1) / most;
  return (left + tiles - 1) / tiles;
}

void stream(const Product& p, int64_t first, int64_t last) {
  for (int64_t output = first; output < last; output += OUTPUTS) {
    const bool whole = output + OUTPUTS <= last;
    for (int64_t row = 0, count; row < p.rows; row += count) {
      count = tile_rows(row, p.rows, ROWS);
      if (!whole) {
        for (int64_t o = output; o < last; o++) tile<1, false>(p, row, count, o);
      } else if (row == 0) {
        tile<OUTPUTS, true>(p, row, count, output);
      } else {
        tile<OUTPUTS, false>(p, row, count, output);
      }
    }
  }
}

// Which of the W sums is taken as the `turn`-th: sum() adds lanes whose highest bit differs first, so
// in this order neighbours are added, then neighbouring pairs.
inline int lane_of(int turn) {
  int lane = 0;
  for (int bit = 0; bit < SUMS_BITS; bit++) lane |= (turn >> bit & 1) << (SUMS_BITS - 1 - bit);
  return lane;
}

// Rows [first, first + count) of a matrix with K columns, count <= W, as [W turns, steps, stride]:
// columns of one turn together. Zeros where there is no row or column.
void lay_out(const float* rows, int64_t count, int64_t K, int64_t stride, float* to) {
  const int64_t steps = (K + W - 1) / W;
  for (int64_t step = 0; step < steps; step++) {
    const int64_t k = step * W;
    V square[W];
    for (int i = 0; i < W; i++) square[i] = i < count ? load_part(rows + i * K + k, K - k) : V{};
    transpose(square);
    for (int turn = 0; turn < W; turn++)
      store(to + (turn * steps + step) * stride, square[lane_of(turn)]);
  }
}

// M rows of x by WIDE rows of W, both laid out, to y from `output` on, of which `outputs` are left.
template <int M>
void meet(const float* x, const float* w, int64_t steps, const float* bias, float* y,
          int64_t y_stride, int64_t outputs) {
  V sums[M][2], kept[SUMS_BITS][M][2];
  for (int turn = 0; turn < W; turn++) {
    for (int m = 0; m < M; m++) sums[m][0] = sums[m][1] = V{};
    for (int64_t step = 0; step < steps; step++, x += W, w += WIDE) {
      const V low = load(w), high = load(w + W);
      for (int m = 0; m < M; m++) {
        const V input = splat(x[m]);
        sums[m][0] = fused(input, low, sums[m][0]);
        sums[m][1] = fused(input, high, sums[m][1]);
      }
    }
    int level = 0;
    for (; turn >> level & 1; level++)
      for (int m = 0; m < M; m++)
        for (int half = 0; half < 2; half++) sums[m][half] += kept[level][m][half];
    if (level < SUMS_BITS) std::memcpy(kept[level], sums, sizeof sums);
  }
  for (int m = 0; m < M; m++) {
    float row[WIDE];
    store(row, sums[m][0]);
    store(row + W, sums[m][1]);
    for (int64_t o = 0; o < outputs; o++) y[m * y_stride + o] = bias ? row[o] + bias[o] : row[o];
  }
}

using Meet = void (*)(const float*, const float*, int64_t, const float*, float*, int64_t, int64_t);

template <int... M>
constexpr std::array<Meet, sizeof...(M)> by_rows(std::integer_sequence<int, M...>) {
  return {meet<M + 1>...};
}

constexpr auto MEET = by_rows(std::make_integer_sequence<int, TALL>{});

// All of y, the rows of x a chunk at a time. Each thread takes panels of WIDE outputs.
void meet(const Product& p, int64_t threads) {
  static thread_local std::vector<float> laid_out;
  const int64_t K = p.inputs, steps = (K + W - 1) / W;
  const int64_t panels = (p.outputs + WIDE - 1) / WIDE;
  for (int64_t first = 0, chunk; first < p.rows; first += chunk) {
    chunk = tile_rows(first, p.rows, CHUNK);
    struct Tile {
      int64_t row, rows;
    };
    std::vector<Tile> tiles;
    for (int64_t row = 0; row < chunk; row += tiles.back().rows)
      tiles.push_back({row, tile_rows(row, chunk, TALL)});
    const int64_t count = static_cast<int64_t>(tiles.size()), size = W * steps * W;
    laid_out.resize(count * size);
    float* const xs = laid_out.data();
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
      static thread_local std::vector<float> panel;
      panel.resize(W * steps * WIDE);
      float* const ws = panel.data();
#pragma omp for
      for (int64_t t = 0; t < count; t++)
        lay_out(p.x + (first + tiles[t].row) * K, tiles[t].rows, K, W, xs + t * size);
#pragma omp for schedule(dynamic)
      for (int64_t o = 0; o < panels; o++) {
        const int64_t output = o * WIDE, outputs = p.outputs - output;
        const float* w = p.w + output * K;
        lay_out(w, outputs < W ? outputs : W, K, WIDE, ws);
        lay_out(w + W * K, outputs < WIDE ? outputs - W : W, K, WIDE, ws + W);
        for (int64_t t = 0; t < count; t++)
          MEET[tiles[t].rows - 1](xs + t * size, ws, steps, p.bias ? p.bias + output : nullptr,
                                  p.y + (first + tiles[t].row) * p.outputs + output, p.outputs,
                                  outputs < WIDE ? outputs : WIDE);
      }
    }
  }
}

}  // namespace

// x [rows, inputs], w [outputs, inputs], bias [outputs] or null -> y [rows, outputs].
extern "C" void linear(const float* x, const float* w, const float* bias, float* y, int64_t rows,
                       int64_t inputs, int64_t outputs, int64_t threads) {
  const Product p{x, w, bias, y, rows, inputs, outputs};
  if (rows * inputs * outputs < WORTH_A_THREAD) threads = 1;
  if (rows > FEW) return meet(p, threads);
  // Several blocks a thread, so that one that is held up does not hold up the other.
  int64_t block = BLOCK_BYTES / (inputs * static_cast<int64_t>(sizeof(float)));
  const int64_t fair = (outputs + threads * 4 - 1) / (threads * 4);
  if (block > fair) block = fair;
  block = (block + OUTPUTS - 1) / OUTPUTS * OUTPUTS;
  if (block < OUTPUTS) block = OUTPUTS;
  const int64_t blocks = (outputs + block - 1) / block;
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
  for (int64_t b = 0; b < blocks; b++) {
    const int64_t first = b * block, last = first + block < outputs ? first + block : outputs;
    stream(p, first, last);
  }
}
