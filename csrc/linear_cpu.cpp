// The linear layer on a CPU. A block of weight rows is widened to float32 once, into a scratch that stays in the
// caches, and meets every row of x there: memory gives 2 bytes for each weight, and nothing is copied or packed
// beforehand. Compiled once for each instruction set, with ISA naming the namespace.
//
// Each number is summed in the same order however many rows there are, so a row's result does not depend on its batch.
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
typedef float Vector __attribute__((vector_size(kLanes * sizeof(float)), aligned(sizeof(float))));

void widen(const uint16_t* from, float* to, int64_t count) {
  for (int64_t k = 0; k < count; ++k) {
    const uint32_t bits = static_cast<uint32_t>(from[k]) << 16;
    std::memcpy(to + k, &bits, sizeof bits);
  }
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

}  // namespace

void multiply_blocks(const Linear& l, float* scratch, int64_t first_block, int64_t end_block) {
  // Rows and columns that a block lacks stay zero and are multiplied in vain.
  std::memset(scratch, 0, kBlockRows * l.padded_depth * sizeof(float));
  const int64_t fitting = kChunkBytes / static_cast<int64_t>(sizeof(float)) / l.padded_depth;
  const int64_t chunk = fitting < kMaxRows ? kMaxRows : fitting;
  for (int64_t begin = 0; begin < l.num_rows; begin += chunk) {
    const int64_t end = begin + chunk < l.num_rows ? begin + chunk : l.num_rows;
    for (int64_t block = first_block; block < end_block; ++block) {
      const int64_t first = block * kBlockRows;
      const int64_t count = l.width - first < kBlockRows ? l.width - first : kBlockRows;
      for (int64_t v = 0; v < count; ++v) {
        widen(l.weight + (first + v) * l.weight_row_stride, scratch + v * l.padded_depth, l.depth);
      }
      multiply_block(l, scratch, begin, end, first, count);
    }
  }
}

}  // namespace vllm_rast::ISA
