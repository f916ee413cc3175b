// y = x W^T + bias for float32, weights as the checkpoint has them: rows of K inputs, one per output.
//
// A tile multiplies up to ROWS rows of x with OUTPUTS rows of W, each product one running sum over
// K. Few rows of x: W streams past once, the next rows of it fetched while these are used. Many: a
// block of W that fits the second-level cache meets all rows of x in turn. Both take the same sums.
#include "vector.h"

namespace {

constexpr int ROWS = W == 16 ? 8 : 4;
constexpr int OUTPUTS = 3;
constexpr int64_t AHEAD = 4 * OUTPUTS;            // rows of W
constexpr int64_t FEW = 32;                       // rows of x
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

// Rows of x from `row` on that go into one tile: `rows` cut as evenly as ROWS allows.
inline int64_t tile_rows(int64_t row, int64_t rows) {
  const int64_t left = rows - row, tiles = (left + ROWS - 1) / ROWS;
  return (left + tiles - 1) / tiles;
}

void stream(const Product& p, int64_t first, int64_t last) {
  for (int64_t output = first; output < last; output += OUTPUTS) {
    const bool whole = output + OUTPUTS <= last;
    for (int64_t row = 0, count; row < p.rows; row += count) {
      count = tile_rows(row, p.rows);
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

void meet(const Product& p, int64_t first, int64_t last) {
  for (int64_t row = 0, count; row < p.rows; row += count) {
    count = tile_rows(row, p.rows);
    int64_t output = first;
    for (; output + OUTPUTS <= last; output += OUTPUTS) tile<OUTPUTS, false>(p, row, count, output);
    for (; output < last; output++) tile<1, false>(p, row, count, output);
  }
}

}  // namespace

// x [rows, inputs], w [outputs, inputs], bias [outputs] or null -> y [rows, outputs].
extern "C" void linear(const float* x, const float* w, const float* bias, float* y, int64_t rows,
                       int64_t inputs, int64_t outputs, int64_t threads) {
  const Product p{x, w, bias, y, rows, inputs, outputs};
  if (rows * inputs * outputs < WORTH_A_THREAD) threads = 1;
  const bool few = rows <= FEW;
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
    few ? stream(p, first, last) : meet(p, first, last);
  }
}
