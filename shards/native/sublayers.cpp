// A layer's two halves, each from the residual stream to what its ranks add up: one call, and
// nothing in between leaves the memory that the calling thread keeps for it.
#include <vector>

#include "operations.h"

namespace {

// Grows to the longest step there was, and is not given back: a step's activations would
// otherwise be pages that the system clears anew for each of them.
struct Desk {
  std::vector<float> normed, wide, narrow;
};

float* room(std::vector<float>& memory, int64_t values) {
  if (static_cast<int64_t>(memory.size()) < values) {
    memory.clear();  // nothing of it is worth a copy
    memory.resize(values);
  }
  return memory.data();
}

Desk& desk() {
  static thread_local Desk mine;
  return mine;
}

}  // namespace

// Weights as in kernels.py; `heads` and `kv_heads` are this rank's. Python has the same structure.
struct AttentionWeights {
  const float *norm, *wqkv, *wo;
  int64_t width, heads, kv_heads, dim;
  float eps;
};

struct FeedForwardWeights {
  const float *norm, *w13, *w2;
  int64_t width, hidden;
  float eps;
};

// hidden [rows, width] += addend (unless null); wo(attend(wqkv(norm(hidden)))) -> out [rows, width].
//
// Where the rows stand is said as to rotate() and attention(). With `keys` and `values`, the cache's,
// a row sees itself and what is before it; without them pictures are packed, and a row sees its
// whole span.
extern "C" void attention_sublayer(const AttentionWeights* w, const float* cosine,
                                   const float* sine, const int64_t* slots, const int64_t* tables,
                                   const Span* spans, int64_t count, int64_t block_size,
                                   float* keys, float* values, float* hidden, const float* addend,
                                   float* out, int64_t rows, int64_t threads) {
  const int64_t kept = w->kv_heads * w->dim, inner = w->heads * w->dim, stacked = inner + 2 * kept;
  float* normed = room(desk().normed, rows * w->width);
  float* qkv = room(desk().wide, rows * stacked);
  float* attended = room(desk().narrow, rows * inner);
  rms_norm(hidden, addend, w->norm, normed, rows, w->width, w->eps, threads);
  linear(normed, w->wqkv, nullptr, qkv, rows, w->width, stacked, threads);
  rotate(qkv, cosine, sine, slots, keys, values, rows, w->heads, w->kv_heads, w->dim, threads);
  if (keys)
    attention(qkv, stacked, keys, values, kept, tables, block_size, spans, count, w->heads,
              w->kv_heads, w->dim, true, attended, threads);
  else
    attention(qkv, stacked, qkv + inner, qkv + inner + kept, stacked, tables, block_size, spans,
              count, w->heads, w->kv_heads, w->dim, false, attended, threads);
  linear(attended, w->wo, nullptr, out, rows, inner, w->width, threads);
}

// hidden [rows, width] += addend (unless null); w2(silu(w1 n) * w3 n) of n = norm(hidden) -> out.
extern "C" void feed_forward_sublayer(const FeedForwardWeights* w, float* hidden,
                                      const float* addend, float* out, int64_t rows,
                                      int64_t threads) {
  float* normed = room(desk().normed, rows * w->width);
  float* inner = room(desk().wide, rows * w->hidden);
  rms_norm(hidden, addend, w->norm, normed, rows, w->width, w->eps, threads);
  gated_linear(normed, w->w13, inner, rows, w->width, w->hidden, threads);
  linear(inner, w->w2, nullptr, out, rows, w->hidden, w->width, threads);
}
