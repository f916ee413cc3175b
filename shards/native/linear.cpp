// y = x W^T + bias for float32, weights as the checkpoint has them: rows of K, one an output.
//
// An element of y is W sums, each over every W-th input in turn, then added up in sum()'s order.
// That can be had in two ways, and a row's bits are the same in both:
//
//   few rows of x    a register holds the W sums of one element; W streams past once, the next rows
//                    of it fetched while these are used
//   many             a register holds the first of the W sums of W neighbouring outputs, then the
//                    next one; both sides are laid out for that before, which few rows do not repay
#include <array>
#include <utility>
#include <vector>

#include "operations.h"
#include "vector.h"

namespace {

// As many running sums as leave registers for a row of x and OUTPUTS of W.
constexpr int ROWS = W == 16 ? 6 : 4;
constexpr int OUTPUTS = W == 16 ? 4 : 3;
constexpr int LINE = 4;                           // lanes for the sums of a row
constexpr int64_t AHEAD = 4 * OUTPUTS;            // rows of W
constexpr int64_t FEW = 32;                       // rows of x
constexpr int TALL = W == 16 ? 14 : 6;            // rows of x in a tile of many
constexpr int WIDE = 2 * W;                       // outputs in it
constexpr int SUMS_BITS = W == 16 ? 4 : 3;
constexpr int64_t CHUNK = 448;                    // rows of x laid out at once
constexpr int64_t BLOCK_BYTES = 384 * 1024;       // of W, that fit a second-level cache
constexpr int64_t WORTH_A_THREAD = 64 * 1024;     // multiplications

struct Product {
  const float *x, *w, *bias;
  float* y;
  int64_t rows, inputs, outputs, stride;  // stride: floats from one row of y to the next
};

// Adds up each of the M x R running sums, and puts them where they belong.
template <int M, int R>
inline void finish(const Product& p, int64_t row, int64_t output, const V* running) {
  static_assert(R <= LINE, "a row's sums fit its lanes");
  constexpr int together = W / LINE;
#pragma GCC unroll 8
  for (int first = 0; first < M; first += together) {
    V registers[W];
#pragma GCC unroll 16
    for (int lane = 0; lane < W; lane++) {
      const int m = first + lane / LINE, r = lane % LINE;
      registers[reversed(lane)] = running[m < M && r < R ? m * R + r : 0];
    }
    float totals[W];
    store(totals, sums(registers));
    for (int m = first; m < first + together && m < M; m++) {
      float line[R];
      std::memcpy(line, totals + (m - first) * LINE, sizeof line);
      if (p.bias)
        for (int r = 0; r < R; r++) line[r] += p.bias[output + r];
      std::memcpy(p.y + (row + m) * p.stride + output, line, sizeof line);
    }
  }
}

template <int M, int R, bool fetch>
inline void tile(const Product& p, int64_t row, int64_t output) {
  const int64_t K = p.inputs;
  const float *x = p.x + row * K, *w = p.w + output * K;
  V running[M * R] = {};
  int64_t k = 0;
  for (; k + W <= K; k += W) {
    V weights[R];
    for (int r = 0; r < R; r++) {
      weights[r] = held(load(w + r * K + k));
      if (fetch) __builtin_prefetch(w + (r + AHEAD) * K + k);
    }
    for (int m = 0; m < M; m++) {
      const V column = held(load(x + m * K + k));
      for (int r = 0; r < R; r++) running[m * R + r] = fused(column, weights[r], running[m * R + r]);
    }
  }
  if (k < K) {  // filled up with zeros
    V weights[R];
    for (int r = 0; r < R; r++) weights[r] = load_part(w + r * K + k, K - k);
    for (int m = 0; m < M; m++) {
      const V column = load_part(x + m * K + k, K - k);
      for (int r = 0; r < R; r++) running[m * R + r] = fused(column, weights[r], running[m * R + r]);
    }
  }
  finish<M, R>(p, row, output, running);
}

template <int R, bool fetch>
inline void tile(const Product& p, int64_t row, int64_t rows, int64_t output) {
  static_assert(ROWS <= 6, "a case for every number of rows");
  switch (rows) {
    case 1: return tile<1, R, fetch>(p, row, output);
    case 2: return tile<2, R, fetch>(p, row, output);
    case 3: return tile<3, R, fetch>(p, row, output);
    case 4: return tile<4, R, fetch>(p, row, output);
  }
  if constexpr (ROWS == 6) {
    switch (rows) {
      case 5: return tile<5, R, fetch>(p, row, output);
      case 6: return tile<6, R, fetch>(p, row, output);
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

// Which of the W sums is taken as the `turn`-th: sum() adds lanes whose highest bit differs first,
// so in this order neighbours are added, then neighbouring pairs.
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

// All of y, the rows of x a chunk at a time. Each thread takes some panels of WIDE outputs; of
// `gated` products the gate's and the other's, so that what is to be gated stays in its cache.
template <bool gated>
void meet(const Product& p, int64_t threads) {
  static thread_local std::vector<float> laid_out;
  constexpr int64_t matrices = gated ? 2 : 1;
  const int64_t K = p.inputs, steps = (K + W - 1) / W;
  const int64_t panels = (p.outputs + WIDE - 1) / WIDE, panel_size = W * steps * WIDE;
  const int64_t panel_bytes = matrices * panel_size * static_cast<int64_t>(sizeof(float));
  const int64_t fitting = BLOCK_BYTES / panel_bytes;
  const int64_t fair = panels / (threads * 3);
  const int64_t some = fitting < 1 || fair < 1 ? 1 : fitting < fair ? fitting : fair;
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
      static thread_local std::vector<float> weights;
      weights.resize(some * matrices * panel_size);
      float* const ws = weights.data();
#pragma omp for
      for (int64_t t = 0; t < count; t++)
        lay_out(p.x + (first + tiles[t].row) * K, tiles[t].rows, K, W, xs + t * size);
#pragma omp for schedule(dynamic)
      for (int64_t begin = 0; begin < panels; begin += some) {
        const int64_t end = begin + some < panels ? begin + some : panels;
        for (int64_t o = begin; o < end; o++) {
          for (int64_t half = 0; half < 2 * matrices; half++) {
            const int64_t output = o * WIDE + half % 2 * W, left = p.outputs - output;
            const float* w = p.w + (half / 2 * p.outputs + output) * K;
            lay_out(w, left < W ? left : W, K, WIDE,
                    ws + ((o - begin) * matrices + half / 2) * panel_size + half % 2 * W);
          }
        }
        for (int64_t t = 0; t < count; t++) {
          for (int64_t o = begin; o < end; o++) {
            const int64_t output = o * WIDE, left = p.outputs - output;
            const int64_t outputs = left < WIDE ? left : WIDE;
            const Meet meet = MEET[tiles[t].rows - 1];
            const float *x = xs + t * size, *w = ws + (o - begin) * matrices * panel_size;
            float* y = p.y + (first + tiles[t].row) * p.stride + output;
            if (gated) {
              float gate[TALL * WIDE], up[TALL * WIDE];
              meet(x, w, steps, nullptr, gate, WIDE, outputs);
              meet(x, w + panel_size, steps, nullptr, up, WIDE, outputs);
              for (int64_t m = 0; m < tiles[t].rows; m++)
                gate_row(gate + m * WIDE, up + m * WIDE, y + m * p.stride, outputs);
            } else {
              meet(x, w, steps, p.bias ? p.bias + output : nullptr, y, p.stride, outputs);
            }
          }
        }
      }
    }
  }
}

// Outputs of a block, of which there are several a thread, so that one that is held up does not
// hold up the other; `matrices` are read beside each other.
int64_t block_outputs(int64_t inputs, int64_t outputs, int64_t matrices, int64_t threads) {
  int64_t block = BLOCK_BYTES / (inputs * matrices * static_cast<int64_t>(sizeof(float)));
  const int64_t fair = (outputs + threads * 4 - 1) / (threads * 4);
  if (block > fair) block = fair;
  block = (block + OUTPUTS - 1) / OUTPUTS * OUTPUTS;
  return block < OUTPUTS ? OUTPUTS : block;
}

}  // namespace

// x [rows, inputs], w [outputs, inputs], bias [outputs] or null -> y [rows, outputs].
extern "C" void linear(const float* x, const float* w, const float* bias, float* y, int64_t rows,
                       int64_t inputs, int64_t outputs, int64_t threads) {
  const Product p{x, w, bias, y, rows, inputs, outputs, outputs};
  if (rows * inputs * outputs < WORTH_A_THREAD) threads = 1;
  if (rows > FEW) return meet<false>(p, threads);
  const int64_t block = block_outputs(inputs, outputs, 1, threads);
  const int64_t blocks = (outputs + block - 1) / block;
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
  for (int64_t b = 0; b < blocks; b++) {
    const int64_t first = b * block, last = first + block < outputs ? first + block : outputs;
    stream(p, first, last);
  }
}

// x [rows, inputs], w [2 * width, inputs], gate above up -> silu(gate x) * up x, y [rows, width].
extern "C" void gated_linear(const float* x, const float* w, float* y, int64_t rows,
                             int64_t inputs, int64_t width, int64_t threads) {
  if (2 * rows * inputs * width < WORTH_A_THREAD) threads = 1;
  if (rows > FEW) return meet<true>({x, w, nullptr, y, rows, inputs, width, width}, threads);
  const int64_t block = block_outputs(inputs, width, 2, threads);
  const int64_t blocks = (width + block - 1) / block;
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
  for (int64_t b = 0; b < blocks; b++) {
    static thread_local std::vector<float> desk;
    const int64_t first = b * block, count = block < width - first ? block : width - first;
    desk.resize(2 * rows * block);
    float *gate = desk.data(), *up = gate + rows * block;
    stream({x, w + first * inputs, nullptr, gate, rows, inputs, count, block}, 0, count);
    stream({x, w + (width + first) * inputs, nullptr, up, rows, inputs, count, block}, 0, count);
    for (int64_t row = 0; row < rows; row++)
      gate_row(gate + row * block, up + row * block, y + row * width + first, count);
  }
}
