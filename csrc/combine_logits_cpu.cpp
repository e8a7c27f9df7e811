// The CPU kernel: plain loops for the compiler to vectorise. Compiled once for each instruction set, with ISA naming
// the namespace; everything else is local, so that no function compiled for AVX-512 can stand in for a plain one.
#include <cstring>
#include <type_traits>

#include "lanes.h"

namespace vllm_rast::ISA {
namespace {

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
    return as_float(as_bits(value) | static_cast<uint32_t>(x & 0x8000) << 16);
  }
};

// A model that takes part in a row, at the first column of a tile.
struct Part {
  const void* logits;
  float weight;
  LogitsType type;
};

#if defined(__clang__)
#define VLLM_RAST_ABREAST _Pragma("clang loop vectorize(assume_safety)")
#else
#define VLLM_RAST_ABREAST _Pragma("GCC ivdep")
#endif

// Two neighbours of bfloat16 models with each 32-bit load (the first in the low half): widening one by one takes half
// as long again, which is felt if the logits are still in the cache. Returns how many columns are done.
template <int count>
int64_t add_pairs(const Part* parts, float* out, int64_t columns) {
  using Pair = uint32_t __attribute__((aligned(2), may_alias));
  const Pair* pairs[count];
  float weight[count];
  for (int m = 0; m < count; ++m) {
    pairs[m] = static_cast<const Pair*>(parts[m].logits);
    weight[m] = parts[m].weight;
  }
  VLLM_RAST_ABREAST
  for (int64_t v = 0; v < columns / 2; ++v) {
    float low = weight[0] * as_float(pairs[0][v] << 16), high = weight[0] * as_float(pairs[0][v] & 0xffff0000);
    if constexpr (count > 1) low += weight[1] * as_float(pairs[1][v] << 16);
    if constexpr (count > 1) high += weight[1] * as_float(pairs[1][v] & 0xffff0000);
    if constexpr (count > 2) low += weight[2] * as_float(pairs[2][v] << 16);
    if constexpr (count > 2) high += weight[2] * as_float(pairs[2][v] & 0xffff0000);
    out[2 * v] = low;
    out[2 * v + 1] = high;
  }
  return columns / 2 * 2;
}

// out[v] (+)= the sum of `count` models. Written where it was read at most, so the loops are free to run abreast even
// if out is one of the models.
template <class First, class Rest, int count, bool onto>
void add(const Part* parts, float* out, int64_t columns) {
  int64_t done = 0;
  if constexpr (std::is_same_v<First, Bfloat16> && !onto) done = add_pairs<count>(parts, out, columns);
  const auto* first = static_cast<const typename First::Element*>(parts[0].logits);
  const typename Rest::Element* rest[count];
  float weight[count];
  for (int m = 0; m < count; ++m) {
    rest[m] = static_cast<const typename Rest::Element*>(parts[m].logits);
    weight[m] = parts[m].weight;
  }
  VLLM_RAST_ABREAST
  for (int64_t v = done; v < columns; ++v) {
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

// base, mix: whole tiles, with -inf where the row ends earlier.
__attribute__((noinline)) TracePart trace_tile(const float* base, const float* mix) {
  const float base_max = largest(base), mix_max = largest(mix);
  // A tile of -inf alone: -inf - -inf would be nan.
  const float from_base = base_max == -__builtin_inff() ? 0 : base_max;
  const float from_mix = mix_max == -__builtin_inff() ? 0 : mix_max;
  alignas(64) float base_sums[kLanes] = {}, mix_sums[kLanes] = {}, moved[kLanes] = {};
  for (int64_t v = 0; v < kTileColumns; v += kLanes) {
    for (int i = 0; i < kLanes; ++i) {
      const float share = exponential(mix[v + i] - from_mix);
      base_sums[i] += exponential(base[v + i] - from_base);
      mix_sums[i] += share;
      moved[i] += keep_if(share != 0, share * (mix[v + i] - base[v + i]));  // -inf - -inf is nan
    }
  }
  return {base_max, fold(base_sums), mix_max, fold(mix_sums), fold(moved)};
}

// A tile of one model as float32, -inf beyond its width.
void copy_tile(const ModelLogits& model, int64_t n, int64_t column, float* tile) {
  const int64_t left = model.width - column;
  const int64_t columns = left < 0 ? 0 : left < kTileColumns ? left : kTileColumns;
  add_one(part_of(model, 1, n, column), false, tile, columns);  // times 1: an exact copy
  for (int64_t v = columns; v < kTileColumns; ++v) tile[v] = -__builtin_inff();
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

// The same, and what a trace needs of the tile. The base is read first: the mix may take its place.
TracePart combine_tile_traced(const Combination& c, int64_t n, int64_t column, int64_t columns) {
  alignas(64) float base[kTileColumns], mix[kTileColumns];
  copy_tile(c.models[0], n, column, base);
  for (int64_t v = columns; v < kTileColumns; ++v) base[v] = -__builtin_inff();
  combine_tile(c, n, column, columns);
  const ModelLogits out = {c.out, c.out_row_stride, c.vocab, LogitsType::float32};
  copy_tile(out, n, column, mix);
  return trace_tile(base, mix);
}

}  // namespace

void combine_tiles(const Combination& c, TracePart* parts, int64_t first_tile, int64_t end_tile) {
  const int64_t tiles = tiles_per_row(c.vocab);
  for (int64_t tile = first_tile; tile < end_tile; ++tile) {
    const int64_t n = tile / tiles, column = tile % tiles * kTileColumns, left = c.vocab - column;
    const int64_t columns = left < kTileColumns ? left : kTileColumns;
    if (parts == nullptr) {
      combine_tile(c, n, column, columns);
    } else {
      parts[tile] = combine_tile_traced(c, n, column, columns);
    }
  }
}

}  // namespace vllm_rast::ISA
