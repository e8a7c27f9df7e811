// What the CPU's kernels of rows of logits share: loops over a tile's columns for the compiler to vectorise, in an
// order that is the same for every instruction set. Included once by each, with ISA naming the namespace; all of it is
// local.
#pragma once

#include <cstring>

#include "lines.h"

namespace vllm_rast::ISA {
namespace {

inline float as_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline uint32_t as_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// value where `condition` holds, else 0. No branch, which would keep the loop from being vectorised.
inline float keep_if(bool condition, float value) {
  return as_float(as_bits(value) & -static_cast<uint32_t>(condition));
}

// exp(x) for x at most 0 (or nan), within 1 unit in the last place; 0 below -87, near the smallest normal float32.
// x = power * ln 2 + r with |r| <= ln 2 / 2, and exp(r) = 1 + r + r^2 p(r), p fitted for the least relative error.
inline float exponential(float x) {
  constexpr float kRound = 12582912;        // 1.5 * 2^23: adding it leaves the nearest whole number in the low bits
  constexpr float kLn2 = 0.69314575195312;  // its first 16 bits, so that the product is exact
  const float shifted = x * 1.44269502f + kRound;
  const float power = shifted - kRound;
  const float r = (x - power * kLn2) - power * 1.42860677e-6f;
  float p = 0.00138146011f;
  p = p * r + 0.00836871658f;
  p = p * r + 0.0416683890f;
  p = p * r + 0.166665211f;
  p = p * r + 0.499999940f;
  const float two_to_power = as_float((as_bits(shifted) << 23) + 0x3f800000);
  return keep_if(!(x < -87.0f), (p * (r * r) + r + 1.0f) * two_to_power);
}

// As many sums side by side as keep the vector units of every instruction set busy.
constexpr int kLanes = 32;

// The largest numbers of a tile's lanes, [kLanes]; nans are left out.
inline void find_peaks(const float* x, float* lanes) {
  for (int i = 0; i < kLanes; ++i) lanes[i] = -__builtin_inff();
  for (int64_t v = 0; v < kTileColumns; v += kLanes) {
    for (int i = 0; i < kLanes; ++i) lanes[i] = x[v + i] > lanes[i] ? x[v + i] : lanes[i];
  }
}

// The largest number of a tile; nans are left out.
inline float largest(const float* x) {
  alignas(64) float lanes[kLanes];
  find_peaks(x, lanes);
  float result = lanes[0];
  for (int i = 1; i < kLanes; ++i) result = lanes[i] > result ? lanes[i] : result;
  return result;
}

// The lanes' sum, in an order that is the same for every instruction set.
inline float fold(float* lanes) {
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

using Tile = float[kTileColumns];

// A line's tile over its temperature, -inf beyond its width.
inline void load(const Lines& lines, int64_t line, int64_t tile, float* to) {
  const int64_t column = tile * kTileColumns, left = lines.width - column;
  const int64_t columns = left < 0 ? 0 : left < kTileColumns ? left : kTileColumns;
  const float* from = lines.data + (lines.rows == nullptr ? line : lines.rows[line]) * lines.row_stride + column;
  const float temperature = lines.temperatures == nullptr ? 1 : lines.temperatures[line];
  if (temperature == 1 || temperature == 0) {
    std::memcpy(to, from, columns * sizeof(float));
  } else {
    for (int64_t v = 0; v < columns; ++v) to[v] = from[v] / temperature;
  }
  for (int64_t v = columns; v < kTileColumns; ++v) to[v] = -__builtin_inff();
}

// shares[v] = exp(x[v] - max); their sum.
inline float find_shares(const float* __restrict x, float max, float* __restrict shares) {
  const float from = max == -__builtin_inff() ? 0 : max;  // -inf - -inf would be nan
  alignas(64) float sums[kLanes] = {};
  for (int64_t v = 0; v < kTileColumns; v += kLanes) {
    for (int i = 0; i < kLanes; ++i) {
      const float share = exponential(x[v + i] - from);
      shares[v + i] = share;
      sums[i] += share;
    }
  }
  return fold(sums);
}

// A tile's largest logit, and the sum of its shares.
inline Mass mass(const Lines& lines, int64_t line, int64_t tile) {
  alignas(64) Tile x, shares;
  load(lines, line, tile, x);
  const float max = largest(x);
  return {max, find_shares(x, max, shares)};
}

}  // namespace
}  // namespace vllm_rast::ISA
