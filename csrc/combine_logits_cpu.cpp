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

// A model that takes part in a row, at the first column of a tile.
struct Part {
  const void* logits;
  float weight;
  LogitsType type;
};

// out[v] (+)= the sum of `count` models. Written where it was read at most, so the loops are free to run abreast even
// where out is one of the models.
template <class First, class Rest, int count, bool onto>
void add(const Part* parts, float* out, int64_t columns) {
  const auto* first = static_cast<const typename First::Element*>(parts[0].logits);
  const typename Rest::Element* rest[count];
  float weight[count];
  for (int m = 0; m < count; ++m) {
    rest[m] = static_cast<const typename Rest::Element*>(parts[m].logits);
    weight[m] = parts[m].weight;
  }
#if defined(__clang__)
#pragma clang loop vectorize(assume_safety)
#else
#pragma GCC ivdep
#endif
  for (int64_t v = 0; v < columns; ++v) {
    float sum = weight[0] * First::load(first[v]);
    if constexpr (onto) sum = out[v] + sum;
    if constexpr (count > 1) sum += weight[1] * Rest::load(rest[1][v]);
    if constexpr (count > 2) sum += weight[2] * Rest::load(rest[2][v]);
    out[v] = sum;
  }
}

using Add = void (*)(const Part* parts, float* out, int64_t columns);

template <class First, class Rest>
Add pick(int64_t count) {
  return count == 1 ? add<First, Rest, 1, false> : count == 2 ? add<First, Rest, 2, false> : add<First, Rest, 3, false>;
}

// One pass for up to three models that are alike, or that follow a float32 base; nullptr for other company.
Add pick_single_pass(const Part* parts, int64_t count) {
  if (count > 3 || (count == 3 && parts[1].type != parts[2].type)) return nullptr;
  const LogitsType first = parts[0].type, rest = parts[count - 1].type;
  if (first == LogitsType::float32) {
    if (rest == LogitsType::float32) return pick<Float32, Float32>(count);
    return rest == LogitsType::bfloat16 ? pick<Float32, Bfloat16>(count) : pick<Float32, Float16>(count);
  }
  if (first != rest) return nullptr;
  return first == LogitsType::bfloat16 ? pick<Bfloat16, Bfloat16>(count) : pick<Float16, Float16>(count);
}

void add_one(const Part& part, bool onto, float* out, int64_t columns) {
  switch (part.type) {
    case LogitsType::float32:
      return (onto ? add<Float32, Float32, 1, true> : add<Float32, Float32, 1, false>)(&part, out, columns);
    case LogitsType::bfloat16:
      return (onto ? add<Bfloat16, Bfloat16, 1, true> : add<Bfloat16, Bfloat16, 1, false>)(&part, out, columns);
    case LogitsType::float16:
      return (onto ? add<Float16, Float16, 1, true> : add<Float16, Float16, 1, false>)(&part, out, columns);
  }
}

Part part_of(const ModelLogits& model, float weight, int64_t n, int64_t column) {
  const int64_t bytes = model.type == LogitsType::float32 ? 4 : 2;
  return {static_cast<const char*>(model.data) + (n * model.row_stride + column) * bytes, weight, model.type};
}

void combine_tile(const Combination& c, int64_t n, int64_t column, int64_t columns) {
  const float* weights = c.weights + n * c.weight_row_stride;
  float* out = c.out + n * c.out_row_stride + column;
  Part parts[kMaxModels];
  int64_t count = 0;
  int64_t known = columns;  // columns of this tile that every model of this row has
  for (int64_t m = 0; m < c.num_models; ++m) {
    const float weight = weights[m * c.weight_model_stride];
    if (weight == 0) continue;
    const int64_t left = c.models[m].width - column;
    if (left < known) known = left > 0 ? left : 0;
    parts[count++] = part_of(c.models[m], weight, n, column);
  }
  if (const Add single_pass = count > 0 ? pick_single_pass(parts, count) : nullptr) {
    single_pass(parts, out, known);
  } else {
    alignas(64) float sums[kTileColumns];  // and not out, which a later model may be
    for (int64_t v = 0; count == 0 && v < known; ++v) sums[v] = -0.0f;
    for (int64_t m = 0; m < count; ++m) add_one(parts[m], m > 0, sums, known);
    std::memcpy(out, sums, known * sizeof(float));
  }
  for (int64_t v = known; v < columns; ++v) out[v] = -__builtin_inff();
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
