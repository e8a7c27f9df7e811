// The linear layer on a CPU: memory gives 2 bytes for each weight, and nothing is copied or packed beforehand. A few
// rows of x meet the weights as they come from memory; for more of them a block of weight rows is widened to float32
// once, into a scratch that stays in the caches, and meets every row of x there. Compiled once for each instruction
// set, with ISA naming the namespace.
//
// Each number is summed in the same order either way, so a row's result does not depend on its batch.
#include <cstring>

#include "linear.h"

namespace vllm_rast::ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
constexpr int kMaxRows = 4;  // rows of x in a tile
constexpr int kSums = 24;    // of 32 registers
#elif defined(__AVX2__)
constexpr int kLanes = 8;
constexpr int kMaxRows = 3;
constexpr int kSums = 12;  // of 16 registers
#else
constexpr int kLanes = 4;
constexpr int kMaxRows = 3;
constexpr int kSums = 12;
#endif
// Weight rows in a tile: 12 to 24 independent sums, so that multiply-adds never wait for one another.
constexpr int tile_width(int rows) { return kSums / rows >= 12 ? 12 : kSums / rows >= 6 ? 6 : 4; }
static_assert(kBlockRows == 12 && kDepthStep % kLanes == 0);

constexpr int64_t kChunkBytes = 1 << 21;  // of x at a time, so that it stays in the caches while blocks go by

// May lie at any address.
typedef float Vector __attribute__((vector_size(kLanes * sizeof(float)), aligned(sizeof(float)), may_alias));

// Two vectors of bfloat16, read as the lower and the upper halves of one vector of words: two operations widen them,
// and the columns come out as all even ones, then all odd ones. x and the scratch keep to that order.
typedef uint32_t Words __attribute__((vector_size(kLanes * sizeof(uint32_t)), aligned(sizeof(uint16_t)), may_alias));
constexpr int kPair = 2 * kLanes;
static_assert(kDepthStep % kPair == 0);

struct Pair {
  Vector even, odd;
};

inline Pair widen(const uint16_t* from) {
  const Words words = *reinterpret_cast<const Words*>(from);
  return {reinterpret_cast<Vector>(words << 16), reinterpret_cast<Vector>(words & 0xffff0000u)};
}

// The same of fewer than kPair columns, with zeros behind them.
inline Pair widen_rest(const uint16_t* from, int64_t count) {
  uint16_t rest[kPair] = {};
  std::memcpy(rest, from, count * sizeof *from);
  return widen(rest);
}

// To nearest, ties to even; a nan stays one.
inline uint16_t round_to_bfloat16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if (value != value) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline float sum_of(const Vector& v) {
  float total = 0;
  for (int lane = 0; lane < kLanes; ++lane) total += v[lane];
  return total;
}

void store(const Linear& l, int64_t n, int64_t v, float sum) {
  if (l.bias != nullptr) sum += l.bias[v];
  if (l.rounds) {
    static_cast<uint16_t*>(l.out)[n * l.width + v] = round_to_bfloat16(sum);
  } else {
    static_cast<float*>(l.out)[n * l.width + v] = sum;
  }
}

// [rows, tile_width(rows)] numbers of the result from row n and column v on, of which the first `wanted` columns exist.
template <int rows>
void multiply_tile(const Linear& l, const float* weight, int64_t n, int64_t v, int64_t wanted) {
  constexpr int width = tile_width(rows);
  const int64_t depth = l.padded_depth;
  const float* x = l.x + n * depth;
  Vector sums[rows][width] = {};
  for (int64_t k = 0; k < depth; k += kLanes) {
    Vector from_x[rows];
    for (int i = 0; i < rows; ++i) from_x[i] = *reinterpret_cast<const Vector*>(x + i * depth + k);
    for (int j = 0; j < width; ++j) {
      const Vector from_weight = *reinterpret_cast<const Vector*>(weight + j * depth + k);
      for (int i = 0; i < rows; ++i) sums[i][j] += from_x[i] * from_weight;
    }
  }
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < width && j < wanted; ++j) store(l, n + i, v + j, sum_of(sums[i][j]));
  }
}

template <int rows>
void multiply_tiles(const Linear& l, const float* weight, int64_t n, int64_t first, int64_t count) {
  for (int64_t v = 0; v < count; v += tile_width(rows)) {
    multiply_tile<rows>(l, weight + v * l.padded_depth, n, first + v, count - v);
  }
}

// Rows [begin, end) of x times `count` widened weight rows, the first of which is `first`.
void multiply_block(const Linear& l, const float* weight, int64_t begin, int64_t end, int64_t first, int64_t count) {
  const int64_t groups = (end - begin + kMaxRows - 1) / kMaxRows;
  for (int64_t group = 0; group < groups; ++group) {
    // As even as it goes: 4 rows are 2 and 2, since a lone row keeps the vector units waiting for loads.
    const int64_t n = begin + group * (end - begin) / groups;
    switch (begin + (group + 1) * (end - begin) / groups - n) {
      case 1:
        multiply_tiles<1>(l, weight, n, first, count);
        break;
      case 2:
        multiply_tiles<2>(l, weight, n, first, count);
        break;
      case 3:
        multiply_tiles<3>(l, weight, n, first, count);
        break;
      default:
        multiply_tiles<kMaxRows>(l, weight, n, first, count);
    }
  }
}

constexpr int64_t kStreams = 4;  // weight rows that are read from memory side by side

template <int rows>
inline void add_pair(const Pair& from_weight, const float* x, int64_t x_stride, Vector (&sums)[rows][kStreams],
                     int64_t j) {
  for (int i = 0; i < rows; ++i) {
    sums[i][j] += *reinterpret_cast<const Vector*>(x + i * x_stride) * from_weight.even;
    sums[i][j] += *reinterpret_cast<const Vector*>(x + i * x_stride + kLanes) * from_weight.odd;
  }
}

// [rows, kStreams] numbers from column v on, of which the first `wanted` exist: weights straight from memory.
template <int rows>
void multiply_streams(const Linear& l, int64_t v, int64_t wanted) {
  const uint16_t* weight[kStreams];
  for (int64_t j = 0; j < kStreams; ++j) weight[j] = l.weight + (v + (j < wanted ? j : 0)) * l.weight_row_stride;
  Vector sums[rows][kStreams] = {};
  const int64_t whole = l.depth / kPair * kPair, next = kStreams * l.weight_row_stride;
  for (int64_t k = 0; k < whole; k += kPair) {
    for (int64_t j = 0; j < kStreams; ++j) {
      __builtin_prefetch(weight[j] + k + next);
      add_pair(widen(weight[j] + k), l.x + k, l.padded_depth, sums, j);
    }
  }
  if (whole < l.depth) {
    for (int64_t j = 0; j < kStreams; ++j) {
      add_pair(widen_rest(weight[j] + whole, l.depth - whole), l.x + whole, l.padded_depth, sums, j);
    }
  }
  for (int i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < kStreams && j < wanted; ++j) store(l, i, v + j, sum_of(sums[i][j]));
  }
}

void multiply_few_rows(const Linear& l, int64_t first, int64_t end) {
  for (int64_t v = first; v < end; v += kStreams) {
    switch (l.num_rows) {
      case 1:
        multiply_streams<1>(l, v, end - v);
        break;
      case 2:
        multiply_streams<2>(l, v, end - v);
        break;
      default:
        multiply_streams<3>(l, v, end - v);
    }
  }
}

}  // namespace

void widen_row(const uint16_t* from, float* to, int64_t depth) {
  const int64_t end = padded(depth);
  for (int64_t k = 0; k < end; k += kPair) {
    const int64_t left = depth - k;
    const Pair pair = left >= kPair ? widen(from + k) : widen_rest(from + k, left > 0 ? left : 0);
    *reinterpret_cast<Vector*>(to + k) = pair.even;
    *reinterpret_cast<Vector*>(to + k + kLanes) = pair.odd;
  }
}

void multiply_blocks(const Linear& l, float* scratch, int64_t first_block, int64_t end_block) {
  if (l.num_rows <= 3) {
    const int64_t end = end_block * kBlockRows;
    return multiply_few_rows(l, first_block * kBlockRows, end < l.width ? end : l.width);
  }
  // Rows that a block lacks stay zero and are multiplied in vain.
  std::memset(scratch, 0, kBlockRows * l.padded_depth * sizeof(float));
  const int64_t fitting = kChunkBytes / static_cast<int64_t>(sizeof(float)) / l.padded_depth;
  const int64_t chunk = fitting < kMaxRows ? kMaxRows : fitting;
  for (int64_t begin = 0; begin < l.num_rows; begin += chunk) {
    const int64_t end = begin + chunk < l.num_rows ? begin + chunk : l.num_rows;
    for (int64_t block = first_block; block < end_block; ++block) {
      const int64_t first = block * kBlockRows;
      const int64_t count = l.width - first < kBlockRows ? l.width - first : kBlockRows;
      for (int64_t v = 0; v < count; ++v) {
        widen_row(l.weight + (first + v) * l.weight_row_stride, scratch + v * l.padded_depth, l.depth);
      }
      multiply_block(l, scratch, begin, end, first, count);
    }
  }
}

}  // namespace vllm_rast::ISA
