// The linear layer on a CPU: memory gives 2 bytes for each weight, and nothing is copied or packed beforehand. A few
// rows of x meet the weights as they come from memory; for more of them a block of weights is widened to float32 once,
// into a scratch that stays in the first cache, and meets every row of x there. Compiled once for each instruction set,
// with ISA naming the namespace.
//
// Weight rows that are read side by side lie far apart, each at the front of a stretch of its own: then each is a long
// stream, which the processor fetches ahead. Neighbours side by side, of 896 columns, came at 12 GB/s for one thread of
// a Zen 3; streams at 27.
//
// Each number is summed in the same order either way, so a row's result does not depend on its batch.
//
// With VLLM_RAST_DOTS the processor itself multiplies pairs of bfloat16 and adds them to a float32: nothing is widened,
// and a vector of 64 bytes has 32 columns instead of 16. As with AMX, what is too small for a normal bfloat16 is 0.
#include <cstring>
#include <type_traits>

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
static_assert(kBlockRows == 12);

// May lie at any address.
typedef float Vector __attribute__((vector_size(kLanes * sizeof(float)), aligned(sizeof(float)), may_alias));

// 2 kLanes bfloat16, a column of even number in the lower half of each word and its neighbour in the upper one.
typedef uint32_t Words __attribute__((vector_size(kLanes * sizeof(uint32_t)), aligned(sizeof(uint16_t)), may_alias));
constexpr int kPair = 2 * kLanes;
// What is multiplied: Factors are kPair columns, in kFactors vectors; x and the scratch are made of them.
#if defined(VLLM_RAST_DOTS)
typedef uint16_t Element;
typedef Words Factor;
#else
typedef float Element;
typedef Vector Factor;
#endif
constexpr int kFactors = sizeof(Element) / sizeof(uint16_t);
constexpr int kFactorColumns = kPair / kFactors;
constexpr int64_t kDepthBlock = kBlockBytes / sizeof(Element);
static_assert(kDepthBlock % kPair == 0);

struct Factors {
  Factor vectors[kFactors];
};

#if defined(VLLM_RAST_DOTS)
inline Factors factors_of(Words words) { return {{words}}; }

// As an instruction, since compilers know it as one of a target of its own, which a template could not be inlined into.
inline Vector add_product(Vector sum, Factor a, Factor b) {
  __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "vm"(b));
  return sum;
}
#else
// Two operations widen them, and the columns come out as all even ones, then all odd ones.
inline Factors factors_of(Words words) {
  return {{reinterpret_cast<Vector>(words << 16), reinterpret_cast<Vector>(words & 0xffff0000u)}};
}

inline Vector add_product(Vector sum, Factor a, Factor b) { return sum + a * b; }
#endif

// By value: clang takes what a reference to such a vector names for aligned as its size is.
inline Factors factors_at(const uint16_t* from) {
  const Words words = *reinterpret_cast<const Words*>(from);
  return factors_of(words);
}

// The same of fewer than kPair columns, with zeros behind them.
inline Factors last_factors_at(const uint16_t* from, int64_t count) {
  uint16_t rest[kPair] = {};
  std::memcpy(rest, from, count * sizeof *from);
  return factors_at(rest);
}

inline Factor factor_at(const Element* from) { return *reinterpret_cast<const Factor*>(from); }

// To nearest, ties to even; a nan stays one.
inline uint16_t round_to_bfloat16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if (value != value) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// The upper half added to the lower one until a number is left. Half by half as vectors, since GCC made branches of
// loops over lanes: 80 instructions for a number.
template <int lanes>
struct Part {
  typedef float Lanes __attribute__((vector_size(lanes * sizeof(float))));
};

template <int lanes>
inline float sum_of_lanes(const float* from) {
  typename Part<lanes / 2>::Lanes lower, upper;
  std::memcpy(&lower, from, sizeof lower);
  std::memcpy(&upper, from + lanes / 2, sizeof upper);
  lower += upper;
  if constexpr (lanes == 4) {
    return lower[0] + lower[1];
  } else {
    float sums[lanes / 2];
    std::memcpy(sums, &lower, sizeof sums);
    return sum_of_lanes<lanes / 2>(sums);
  }
}

inline float sum_of(const Vector& v) { return sum_of_lanes<kLanes>(reinterpret_cast<const float*>(&v)); }

inline int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }
// The columns of a block, in whole pairs of vectors.
inline int64_t columns_in(int64_t depth, int64_t block) {
  return lesser(kDepthBlock, (depth - block * kDepthBlock + kPair - 1) / kPair * kPair);
}

void store(const Linear& l, int64_t n, int64_t v, float sum) {
  if (l.bias != nullptr) sum += l.bias[v];
  if (l.rounds) {
    static_cast<uint16_t*>(l.out)[n * l.width + v] = round_to_bfloat16(sum);
  } else {
    static_cast<float*>(l.out)[n * l.width + v] = sum;
  }
}

// Columns [first, end) of the result, cut into `streams` stretches. Step by step, each gives its next weight row.
struct Stretches {
  int64_t first, end, length;

  Stretches(int64_t first, int64_t end, int64_t streams)
      : first(first), end(end), length((end - first + streams - 1) / streams) {}
  int64_t row(int64_t step, int64_t stream) const { return first + stream * length + step; }
  // How many of the streams have a row in this step: only the last ones may have none left.
  int64_t count(int64_t step, int64_t streams) const {
    return lesser(streams, (end - first - step + length - 1) / length);
  }
};

// Calls work with `given`, from 1 to `most`, as a constant.
template <int most, typename Work>
void with_rows(int64_t given, const Work& work) {
  if constexpr (most > 1) {
    if (given < most) return with_rows<most - 1>(given, work);
  }
  work(std::integral_constant<int, most>{});
}

// A block of weight rows and a block of columns, as factors.
struct Block {
  const Element* weight;  // [kBlockRows, kDepthBlock]
  const Stretches& stretches;
  int64_t step, count;      // count: of weight rows
  int64_t number, columns;  // of the block of columns
  bool ends;                // whether it is the last
};

// Adds a block's products to [rows, tile_width(rows)] numbers from row n and weight row v of the block on. sums: where
// those numbers' lanes wait between the blocks of columns.
template <int rows, bool fresh>
__attribute__((noinline)) void multiply_tile(const Linear& l, const Block& b, int64_t n, int64_t v, Vector* sums) {
  constexpr int width = tile_width(rows);
  const Element* x = static_cast<const Element*>(l.x) + (b.number * l.num_rows + n) * kDepthBlock;
  const Element* weight = b.weight + v * kDepthBlock;
  Vector tile[rows][width];
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < width; ++j) tile[i][j] = fresh ? Vector{} : sums[i * kBlockRows + v + j];
  }
  int64_t k = 0;
  do {
    Factor from_x[rows];
    for (int i = 0; i < rows; ++i) from_x[i] = factor_at(x + i * kDepthBlock + k);
    for (int j = 0; j < width; ++j) {
      const Factor from_weight = factor_at(weight + j * kDepthBlock + k);
      for (int i = 0; i < rows; ++i) tile[i][j] = add_product(tile[i][j], from_x[i], from_weight);
    }
    k += kFactorColumns;
  } while (k < b.columns);
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < width; ++j) sums[i * kBlockRows + v + j] = tile[i][j];
  }
}

// The numbers of [rows] of x and a block of weight rows, once all columns have been added to their lanes.
void store_sums(const Linear& l, const Block& b, int64_t n, int64_t rows, const Vector* sums) {
  for (int64_t i = 0; i < rows; ++i, sums += kBlockRows) {
    float row[kBlockRows];
    for (int64_t v = 0; v < kBlockRows; ++v) row[v] = sum_of(sums[v]);
    for (int64_t v = 0; v < b.count; ++v) store(l, n + i, b.stretches.row(b.step, v), row[v]);
  }
}

template <int rows>
void multiply_tiles(const Linear& l, const Block& b, int64_t n, Vector* sums) {
  for (int64_t v = 0; v < b.count; v += tile_width(rows)) {
    if (b.number == 0) {
      multiply_tile<rows, true>(l, b, n, v, sums);
    } else {
      multiply_tile<rows, false>(l, b, n, v, sums);
    }
  }
}

// What will be widened next, asked from memory meanwhile, a share at a time: 64 bytes, 64 bytes further, of each
// stream.
struct Ahead {
  const uint16_t* weight;
  int64_t stride, asked = 0;

  static constexpr int64_t kLine = 32, kRowLines = kDepthBlock / kLine, kLines = kBlockRows * kRowLines;

  void ask(int64_t share, int64_t shares) {
    for (const int64_t until = kLines * share / shares; asked < until; ++asked) {
      __builtin_prefetch(weight + asked / kRowLines * stride + asked % kRowLines * kLine);
    }
  }
};

// Rows [begin, end) of x times a block.
void multiply_block(const Linear& l, const Block& b, int64_t begin, int64_t end, Vector* sums, Ahead ahead) {
  const int64_t groups = (end - begin + kMaxRows - 1) / kMaxRows;
  for (int64_t group = 0; group < groups; ++group) {
    ahead.ask(group + 1, groups);
    // As even as it goes: 4 rows are 2 and 2, since a lone row keeps the vector units waiting for loads.
    const int64_t n = begin + group * (end - begin) / groups;
    const int64_t given = begin + (group + 1) * (end - begin) / groups - n;
    with_rows<kMaxRows>(given, [&](auto rows) { multiply_tiles<rows>(l, b, n, sums + (n - begin) * kBlockRows); });
  }
  if (b.ends) store_sums(l, b, begin, end - begin, sums);
}

// How far ahead weights are asked from memory, of which the processor fetches enough by itself only as long as nothing
// else keeps it busy: for many rows of x about the next weight row (12 rows: 1.6 times as fast), for few of them half.
constexpr int64_t columns_ahead(int rows) { return rows > 3 ? 1024 : 512; }

// [rows, streams] numbers from row n of x on, of which the first `count` columns exist.
template <int rows, int streams>
__attribute__((noinline)) void multiply_step(const Linear& l, int64_t n, const uint16_t* const* weight,
                                             const Stretches& stretches, int64_t step, int64_t count) {
  Vector sums[rows][streams] = {};
  const auto add = [&](const Factors& from_weight, const Element* x, int64_t j) {
    for (int i = 0; i < rows; ++i) {
      for (int part = 0; part < kFactors; ++part) {
        const Factor from_x = factor_at(x + i * kDepthBlock + part * kFactorColumns);
        sums[i][j] = add_product(sums[i][j], from_weight.vectors[part], from_x);
      }
    }
  };
  const Element* x = static_cast<const Element*>(l.x) + n * kDepthBlock;
  for (int64_t block = 0; block < l.depth; block += kDepthBlock, x += l.num_rows * kDepthBlock) {
    const int64_t columns = lesser(kDepthBlock, l.depth - block), whole = columns / kPair * kPair;
    for (int64_t k = 0; k < whole; k += kPair) {
      for (int64_t j = 0; j < streams; ++j) {
        __builtin_prefetch(weight[j] + block + k + columns_ahead(rows));
        add(factors_at(weight[j] + block + k), x + k, j);
      }
    }
    for (int64_t j = 0; whole < columns && j < streams; ++j) {
      add(last_factors_at(weight[j] + block + whole, columns - whole), x + whole, j);
    }
  }
  for (int i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < count; ++j) store(l, n + i, stretches.row(step, j), sum_of(sums[i][j]));
  }
}

// A few rows of x, times weights straight from memory. Up to `most` of them take part at a time; for the next ones the
// weights of a step are still in the first cache.
template <int most, int streams>
void multiply_streams(const Linear& l, int64_t first, int64_t end) {
  static_assert(most * streams <= kSums);
  const Stretches stretches(first, end, streams);
  const int64_t groups = (l.num_rows + most - 1) / most;
  for (int64_t step = 0; step < stretches.length; ++step) {
    const int64_t count = stretches.count(step, streams);
    const uint16_t* weight[streams];
    for (int64_t j = 0; j < streams; ++j) {
      weight[j] = l.weight + stretches.row(step, j < count ? j : 0) * l.weight_row_stride;
    }
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t n = group * l.num_rows / groups, given = (group + 1) * l.num_rows / groups - n;
      with_rows<most>(given, [&](auto rows) { multiply_step<rows, streams>(l, n, weight, stretches, step, count); });
    }
  }
}

// Any number of rows of x. Rows that a block lacks are multiplied in vain.
void multiply_blocks(const Linear& l, float* scratch, int64_t first, int64_t end) {
  auto* const factors = reinterpret_cast<Element*>(scratch);
  const Stretches stretches(first, end, kBlockRows);
  const int64_t blocks = (l.depth + kDepthBlock - 1) / kDepthBlock;
  auto* sums = reinterpret_cast<Vector*>(factors + kBlockRows * kDepthBlock);
  for (int64_t begin = 0; begin < l.num_rows; begin += kChunkRows) {
    for (int64_t step = 0; step < stretches.length; ++step) {
      const int64_t count = stretches.count(step, kBlockRows);
      for (int64_t number = 0; number < blocks; ++number) {
        const int64_t column = number * kDepthBlock;
        for (int64_t v = 0; v < count; ++v) {
          const uint16_t* weight = l.weight + stretches.row(step, v) * l.weight_row_stride + column;
          lay_out_row(weight, factors + v * kDepthBlock, 0, lesser(kDepthBlock, l.depth - column));
        }
        const Block block{factors, stretches, step, count, number, columns_in(l.depth, number), number + 1 == blocks};
        const int64_t next = block.ends ? stretches.row(step + 1, 0) * l.weight_row_stride
                                        : stretches.row(step, 0) * l.weight_row_stride + column + kDepthBlock;
        multiply_block(l, block, begin, lesser(begin + kChunkRows, l.num_rows), sums,
                       Ahead{l.weight + next, stretches.length * l.weight_row_stride});
      }
    }
  }
}

}  // namespace

void lay_out_row(const uint16_t* from, void* place, int64_t stride, int64_t depth) {
  auto* to = static_cast<char*>(place);
  for (int64_t block = 0; block * kDepthBlock < depth; ++block, to += stride, from += kDepthBlock) {
    const int64_t left = depth - block * kDepthBlock, columns = columns_in(depth, block);
    for (int64_t k = 0; k < columns; k += kPair) {
      const Factors factors = k + kPair <= left ? factors_at(from + k) : last_factors_at(from + k, left - k);
      std::memcpy(to + k * sizeof(Element), &factors, sizeof factors);
    }
  }
}

void multiply(const Linear& l, float* scratch, int64_t first, int64_t end) {
  if (l.num_rows <= 3) {
    multiply_streams<3, 4>(l, first, end);
  } else if (l.num_rows <= kFewRows) {
    multiply_streams<kSums / 3, 3>(l, first, end);
  } else {
    multiply_blocks(l, scratch, first, end);
  }
}

}  // namespace vllm_rast::ISA
