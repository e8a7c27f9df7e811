// The CPU kernel: plain loops for the compiler to vectorise. Compiled once for each instruction set, with ISA naming
// the namespace; everything else is local, so that no function compiled for AVX-512 can stand in for a plain one.
#include <cstring>

#include "combine_logits.h"

namespace vllm_rast::ISA {
namespace {

inline float as_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

struct Float32 {
  using Element = float;
  static float load(float x) { return x; }
};

struct Bfloat16 {
  using Element = uint16_t;
  static float load(uint16_t x) { return as_float(static_cast<uint32_t>(x) << 16); }
};

struct Float16 {
  using Element = uint16_t;
  // Integer arithmetic vectorises everywhere, and no step meets a float32 subnormal, which a thread may flush to 0.
  static float load(uint16_t x) {
    const uint32_t magnitude = static_cast<uint32_t>(x & 0x7fff) << 13;
    const uint32_t exponent = magnitude & 0x0f800000;
    uint32_t bits = magnitude + ((127 - 15) << 23);
    bits += exponent == 0x0f800000 ? (128 - 16) << 23 : 0;  // inf and nan keep the largest exponent
    const float subnormal = as_float(magnitude + ((127 - 14) << 23)) - as_float((127 - 14) << 23);
    const float value = exponent == 0 ? subnormal : as_float(bits);
    uint32_t unsigned_bits;
    std::memcpy(&unsigned_bits, &value, sizeof value);
    return as_float(unsigned_bits | static_cast<uint32_t>(x & 0x8000) << 16);
  }
};

// sums[v] += weight * logits[v]; the first model's product is stored, not added.
template <class Type>
void add(const void* row, int64_t column, float weight, bool first, float* __restrict sums, int64_t count) {
  const auto* logits = static_cast<const typename Type::Element*>(row) + column;
  if (first) {
    for (int64_t v = 0; v < count; ++v) sums[v] = weight * Type::load(logits[v]);
  } else {
    for (int64_t v = 0; v < count; ++v) sums[v] += weight * Type::load(logits[v]);
  }
}

void add_model(const ModelLogits& model, int64_t n, int64_t column, float weight, bool first, float* sums,
               int64_t count) {
  const int64_t offset = n * model.row_stride;
  switch (model.type) {
    case LogitsType::float32:
      return add<Float32>(static_cast<const float*>(model.data) + offset, column, weight, first, sums, count);
    case LogitsType::bfloat16:
      return add<Bfloat16>(static_cast<const uint16_t*>(model.data) + offset, column, weight, first, sums, count);
    case LogitsType::float16:
      return add<Float16>(static_cast<const uint16_t*>(model.data) + offset, column, weight, first, sums, count);
  }
}

void combine_tile(const Combination& c, int64_t n, int64_t column, int64_t count) {
  const float* weights = c.weights + n * c.weight_row_stride;
  int64_t known = count;  // columns of this tile that every model of this row has
  for (int64_t m = 0; m < c.num_models; ++m) {
    const int64_t left = c.models[m].width - column;
    if (weights[m * c.weight_model_stride] != 0 && left < known) known = left > 0 ? left : 0;
  }
  alignas(64) float sums[kTileColumns];
  bool first = true;
  for (int64_t m = 0; m < c.num_models; ++m) {
    const float weight = weights[m * c.weight_model_stride];
    if (weight == 0) continue;
    add_model(c.models[m], n, column, weight, first, sums, known);
    first = false;
  }
  float* out = c.out + n * c.out_row_stride + column;
  if (first) {
    for (int64_t v = 0; v < known; ++v) out[v] = -0.0f;
  } else {
    std::memcpy(out, sums, known * sizeof(float));
  }
  for (int64_t v = known; v < count; ++v) out[v] = -__builtin_inff();
}

}  // namespace

void combine_tiles(const Combination& c, int64_t first_tile, int64_t end_tile) {
  const int64_t tiles = tiles_per_row(c.vocab);
  for (int64_t tile = first_tile; tile < end_tile; ++tile) {
    const int64_t column = tile % tiles * kTileColumns;
    const int64_t left = c.vocab - column;
    combine_tile(c, tile / tiles, column, left < kTileColumns ? left : kTileColumns);
  }
}

}  // namespace vllm_rast::ISA
