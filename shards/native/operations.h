// The operations that a sublayer is made of, as they are called from C++ and from Python alike.
// Shapes and meanings stand with each.
#pragma once

#include <cstdint>

struct Span;

extern "C" {
void linear(const float* x, const float* w, const float* bias, float* y, int64_t rows,
            int64_t inputs, int64_t outputs, int64_t threads);
void gated_linear(const float* x, const float* w, float* y, int64_t rows, int64_t inputs,
                  int64_t width, int64_t threads);
void rms_norm(float* x, const float* addend, const float* weight, float* y, int64_t rows,
              int64_t width, float eps, int64_t threads);
void rotate(float* qkv, const float* cosine, const float* sine, const int64_t* slots, float* keys,
            float* values, int64_t rows, int64_t heads, int64_t kv_heads, int64_t dim,
            int64_t threads);
void attention(const float* q, int64_t q_stride, const float* keys, const float* values,
               int64_t kv_stride, const int64_t* tables, int64_t block_size, const Span* spans,
               int64_t count, int64_t heads, int64_t kv_heads, int64_t dim, int64_t causal,
               float* out, int64_t threads);
}
