// What stands between the matrices, each in one pass over its rows: RMSNorm, the gate, RoPE.
#include <cmath>

#include "operations.h"
#include "vector.h"

namespace {

constexpr int64_t WORTH_A_THREAD = 128 * 1024;  // values

}  // namespace

// x [rows, width] += addend, unless that is null; x / rms(x) * weight [width] -> y.
extern "C" void rms_norm(float* x, const float* addend, const float* weight, float* y,
                         int64_t rows, int64_t width, float eps, int64_t threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1 && rows * width > WORTH_A_THREAD)
  for (int64_t row = 0; row < rows; row++) {
    float *from = x + row * width, *to = y + row * width;
    if (addend) {
      const float* more = addend + row * width;
      for (int64_t j = 0; j < width; j++) from[j] += more[j];
    }
    V squares = {};
    for (int64_t j = 0; j < width; j += W) {
      const V v = load_part(from + j, width - j);
      squares = fused(v, v, squares);
    }
    const float scale = 1.0f / std::sqrt(sum(squares) / static_cast<float>(width) + eps);
    int64_t j = 0;
    for (; j + W <= width; j += W) store(to + j, load(from + j) * scale * load(weight + j));
    for (; j < width; j++) to[j] = from[j] * scale * weight[j];
  }
}

// gate_up [rows, 2 * width] -> silu(first half) * second half, y [rows, width].
extern "C" void gated(const float* gate_up, float* y, int64_t rows, int64_t width,
                      int64_t threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1 && rows * width > WORTH_A_THREAD)
  for (int64_t row = 0; row < rows; row++) {
    const float* gate = gate_up + row * 2 * width;
    gate_row(gate, gate + width, y + row * width, width);
  }
}

// Rotates queries and keys where they stand in qkv [rows, (heads + 2 * kv_heads) * dim], by cosine
// and sine [rows, dim / 2]; then, unless `slots` [rows] is null, copies keys and values to their
// slots of the cache, [slots, kv_heads, dim] each.
extern "C" void rotate(float* qkv, const float* cosine, const float* sine, const int64_t* slots,
                       float* keys, float* values, int64_t rows, int64_t heads, int64_t kv_heads,
                       int64_t dim, int64_t threads) {
  const int64_t width = (heads + 2 * kv_heads) * dim, half = dim / 2, kept = kv_heads * dim;
#pragma omp parallel for num_threads(threads) if (threads > 1 && rows * width > WORTH_A_THREAD)
  for (int64_t row = 0; row < rows; row++) {
    float* at = qkv + row * width;
    const float *c = cosine + row * half, *s = sine + row * half;
    for (int64_t head = 0; head < heads + kv_heads; head++) {
      float *first = at + head * dim, *second = first + half;
      int64_t j = 0;
      for (; j + W <= half; j += W) {
        const V a = load(first + j), b = load(second + j), cj = load(c + j), sj = load(s + j);
        store(first + j, a * cj - b * sj);
        store(second + j, b * cj + a * sj);
      }
      for (; j < half; j++) {
        const float a = first[j], b = second[j];
        first[j] = a * c[j] - b * s[j];
        second[j] = b * c[j] + a * s[j];
      }
    }
    if (slots) {
      const float* k = at + heads * dim;
      std::memcpy(keys + slots[row] * kept, k, sizeof(float) * kept);
      std::memcpy(values + slots[row] * kept, k + kept, sizeof(float) * kept);
    }
  }
}
