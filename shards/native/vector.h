// A register of floats in GCC's and Clang's portable vector notation, and what C lacks for it.
//
// Every sum is taken in one fixed order, whatever rows share a call: a row's bits never depend on
// its company. So nothing is left to the compiler: no -ffast-math, and multiplication is fused with
// addition where fused() says so and nowhere else (-ffp-contract=off).
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

#if defined(__FMA__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int W = 16;  // floats in a register, of which there are 32
#else
constexpr int W = 8;  // 16 registers on AVX2; narrower machines take two for one
#endif

typedef float V __attribute__((vector_size(W * sizeof(float))));
typedef int32_t VI __attribute__((vector_size(W * sizeof(int32_t))));

static inline V load(const float* from) {
  V v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

// The first `count` floats of `from`, zeros for the rest.
static inline V load_part(const float* from, int64_t count) {
  if (count >= W) return load(from);
#if defined(__AVX512F__)
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), from);
#endif
  float part[W] = {};
  std::memcpy(part, from, sizeof(float) * static_cast<size_t>(count));
  return load(part);
}

static inline void store(float* to, V v) { std::memcpy(to, &v, sizeof v); }

// a * b + c, rounded once where the processor can.
static inline V fused(V a, V b, V c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#else
  return a * b + c;
#endif
}

// In a register from here on: left to itself, GCC reads memory again at every use.
static inline V held(V v) {
#if defined(__AVX__)
  asm("" : "+v"(v));
#endif
  return v;
}

static inline V splat(float x) { return x - V{}; }

static inline V larger(V a, V b) { return a > b ? a : b; }

// Lane j of the result holds lane j ^ S of `v`.
template <int S>
static inline V exchange(V v) {
  VI lanes;
  for (int j = 0; j < W; j++) lanes[j] = j ^ S;
  return __builtin_shuffle(v, lanes);
}

static inline float sum(V v) {
  if constexpr (W == 16) v += exchange<8>(v);
  v += exchange<4>(v);
  v += exchange<2>(v);
  v += exchange<1>(v);
  return v[0];
}

// A stage of sum() for two registers at once: lanes without bit S go on with `a`, the others `b`.
template <int S>
static inline V halved(V a, V b) {
  VI low, high;
  for (int j = 0; j < W; j++) {
    low[j] = j & S ? W + (j ^ S) : j;
    high[j] = j & S ? W + j : j ^ S;
  }
  return __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, high);
}

// sum() of each of W registers: the same additions, so the same bits, in a third of the
// instructions. Lane j of the result is the sum of register reversed(j).
template <int N = W>
static inline V sums(const V* v) {
  if constexpr (N == 1) {
    return v[0];
  } else {
    V halves[N / 2];
    for (int i = 0; i < N / 2; i++) halves[i] = halved<N / 2>(v[2 * i], v[2 * i + 1]);
    return sums<N / 2>(halves);
  }
}

constexpr int reversed(int lane) {
  int at = 0;
  for (int bit = W / 2; bit; bit /= 2, lane /= 2) at += lane % 2 * bit;
  return at;
}

static inline float maximum(V v) {
  if constexpr (W == 16) v = larger(v, exchange<8>(v));
  v = larger(v, exchange<4>(v));
  v = larger(v, exchange<2>(v));
  v = larger(v, exchange<1>(v));
  return v[0];
}

// One stage of a butterfly that swaps lane bit S with register bit S.
template <int S>
static inline void swap_bit(V (&v)[W]) {
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

static inline void transpose(V (&v)[W]) {
  if constexpr (W == 16) swap_bit<8>(v);
  swap_bit<4>(v);
  swap_bit<2>(v);
  swap_bit<1>(v);
}

// e^x for x <= 88 to about one unit in the last place (Cephes' polynomial); 0 below -87. What is
// not a number stays so.
static inline V fading(V x) {
  const V least = splat(-87.0f), magic = splat(12582912.0f);
  const V bounded = x < least ? least : x;
  const V n = fused(bounded, splat(1.44269504088896341f), magic) - magic;  // a whole number
  const V r = fused(n, splat(2.12194440e-4f), fused(n, splat(-0.693359375f), bounded));
  V p = splat(1.9875691500e-4f);
  p = fused(p, r, splat(1.3981999507e-3f));
  p = fused(p, r, splat(8.3334519073e-3f));
  p = fused(p, r, splat(4.1665795894e-2f));
  p = fused(p, r, splat(1.6666665459e-1f));
  p = fused(p, r, splat(5.0000001201e-1f));
  p = fused(p, r * r, r) + 1.0f;
  const VI power = (__builtin_convertvector(n, VI) + 127) << 23;
  V scale;
  std::memcpy(&scale, &power, sizeof scale);
  return x < least ? V{} : p * scale;
}

// e^x; infinite above 88.
static inline V exponential(V x) {
  const V most = splat(88.0f);
  const V infinite = splat(std::numeric_limits<float>::infinity());
  return x > most ? infinite : fading(x > most ? most : x);
}

// silu(gate) * up of `count` values.
static inline void gate_row(const float* gate, const float* up, float* to, int64_t count) {
  int64_t j = 0;
  for (; j + W <= count; j += W) {
    const V g = load(gate + j);
    store(to + j, g / (1.0f + exponential(-g)) * load(up + j));
  }
  if (j < count) {
    float rest[W];
    const V g = load_part(gate + j, count - j);
    store(rest, g / (1.0f + exponential(-g)));
    for (int64_t i = 0; j + i < count; i++) to[j + i] = rest[i] * up[j + i];
  }
}
