// The linear layer on processors with AMX, whose tiles multiply 16 weight rows with 16 rows of x, 32 columns at a time.
//
// Weights come from memory into the left tile as they lie there, 16 rows of 64 bytes; only x is packed, once for all
// threads. Asking for the next rows ahead gained nothing: the processor sees the streams by itself. A number is the sum
// over its columns in their order, in float32, and does not depend on the tile's other rows: so a row's result does not
// depend on its batch. The unit takes what is too small for a normal bfloat16 as 0.
#include "linear.h"

#if defined(__x86_64__) && defined(__linux__) && \
    (__has_include(<amxbf16intrin.h>) || (defined(__clang__) && __has_include(<amxintrin.h>)))
#define VLLM_RAST_AMX
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#endif

namespace vllm_rast::amx {

#if !defined(VLLM_RAST_AMX)  // another machine, or a compiler from before AMX
bool available() { return false; }
void pack_group(const Linear&, const uint16_t*, int64_t, uint16_t*, int64_t) {}
void multiply(const Linear&, int64_t, int64_t) {}
#else

#define TILES __attribute__((target("amx-tile,amx-bf16,avx512f")))

namespace {

constexpr int64_t kRows = 16;          // of a tile, of x and of the weight alike
constexpr int64_t kColumns = 32;       // that a tile has of each row: 64 bytes
constexpr int64_t kBlock = 2 * kRows;  // two tiles of weight rows meet two of x: a tile is loaded for two products

inline int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t steps_of(int64_t depth) { return (depth + kColumns - 1) / kColumns; }

// GCC's intrinsics do not say what memory they read: before it is read, it is written.
inline void settle_memory() { __asm__ volatile("" ::: "memory"); }

// What LDTILECFG reads.
struct alignas(64) Shapes {
  uint8_t palette = 0, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// Tiles 0 to 3: sums, of weight tile i and x tile j in 2 i + j. 4 and 5: weights. 6 and 7: x, a pair of columns to a
// row.
Shapes shapes_for(int64_t left, int64_t right) {
  Shapes shapes;
  shapes.palette = 1;
  const int64_t widths[2] = {lesser(kRows, left), lesser(kRows, left - lesser(kRows, left))};
  const int64_t heights[2] = {lesser(kRows, right), lesser(kRows, right - lesser(kRows, right))};
  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 2; ++j) {
      shapes.rows[2 * i + j] = widths[i];
      shapes.row_bytes[2 * i + j] = 4 * heights[j];
    }
    shapes.rows[4 + i] = widths[i];
    shapes.row_bytes[4 + i] = 2 * kColumns;
    shapes.rows[6 + i] = kColumns / 2;
    shapes.row_bytes[6 + i] = 4 * heights[i];
  }
  for (int tile = 0; tile < 8; ++tile) {  // a tile without rows or columns is none
    if (shapes.rows[tile] == 0 || shapes.row_bytes[tile] == 0) shapes.rows[tile] = shapes.row_bytes[tile] = 0;
  }
  return shapes;
}

// The tiles' shapes belong to the thread, and other libraries leave theirs there: they get them back.
struct Configured {
  Shapes before, now;

  TILES Configured() {
    _tile_storeconfig(&before);
    settle_memory();
  }
  TILES ~Configured() {
    if (before.palette == 0) {
      _tile_release();
    } else {
      _tile_loadconfig(&before);
    }
  }
  TILES void configure(int64_t left, int64_t right) {
    const Shapes wanted = shapes_for(left, right);
    if (std::memcmp(&wanted, &now, sizeof now) == 0) return;
    now = wanted;
    settle_memory();
    _tile_loadconfig(&now);
  }
};

// 16 vectors of 16 floats, columns for rows.
TILES inline void transpose(__m512 v[16]) {
  for (int half = 1; half < 16; half *= 2) {
    alignas(64) int low[16], high[16];
    for (int lane = 0; lane < 16; ++lane) {
      low[lane] = lane & half ? 16 + lane - half : lane;
      high[lane] = lane & half ? 16 + lane : lane + half;
    }
    const __m512i to_low = _mm512_load_si512(low), to_high = _mm512_load_si512(high);
    for (int i = 0; i < 16; ++i) {
      if (i & half) continue;
      const __m512 a = v[i], b = v[i + half];
      v[i] = _mm512_permutex2var_ps(a, to_low, b);
      v[i + half] = _mm512_permutex2var_ps(a, to_high, b);
    }
  }
}

// To nearest, ties to even; a nan stays one.
TILES inline __m256i round_to_bfloat16(__m512 values) {
  const __m512i bits = _mm512_castps_si512(values);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded =
      _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
  const __m512i nan = _mm512_or_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(0x40));
  return _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q), nan));
}

// A tile of sums, [count weight rows, rows of x], to the result's rows from n on and columns from v on.
TILES void store(const Linear& l, const float* sums, int64_t v, int64_t count, int64_t n, int64_t rows) {
  __m512 by_row[kRows] = {};
  for (int64_t i = 0; i < count; ++i) by_row[i] = _mm512_loadu_ps(sums + i * kRows);
  transpose(by_row);
  const auto mask = static_cast<__mmask16>((1u << count) - 1);
  const __m512 bias = l.bias == nullptr ? __m512{} : _mm512_maskz_loadu_ps(mask, l.bias + v);
  for (int64_t j = 0; j < rows; ++j) {
    const int64_t place = (n + j) * l.width + v;
    const __m512 row = l.bias == nullptr ? by_row[j] : _mm512_add_ps(by_row[j], bias);
    if (!l.rounds) {
      _mm512_mask_storeu_ps(static_cast<float*>(l.out) + place, mask, row);
    } else {
      alignas(32) uint16_t rounded[kRows];
      _mm256_store_si256(reinterpret_cast<__m256i*>(rounded), round_to_bfloat16(row));
      std::memcpy(static_cast<uint16_t*>(l.out) + place, rounded, count * sizeof *rounded);
    }
  }
}

// Weight rows from v on, and where their next columns lie: the last of them are copied, with zeros behind them.
struct Weights {
  const uint16_t* rows;
  int64_t stride, depth, count;
  alignas(64) uint16_t rest[kBlock * kColumns];

  Weights(const Linear& l, int64_t v, int64_t count)
      : rows(l.weight + v * l.weight_row_stride), stride(l.weight_row_stride), depth(l.depth), count(count) {
    const int64_t whole = depth / kColumns * kColumns;
    if (whole == depth) return;
    std::memset(rest, 0, sizeof rest);
    for (int64_t i = 0; i < count; ++i) {
      std::memcpy(rest + i * kColumns, rows + i * stride + whole, (depth - whole) * sizeof *rest);
    }
    settle_memory();
  }
};

// Up to 2 tiles of weight rows times up to 2 tiles of x, all columns.
template <int left, int right>
TILES void multiply_tiles(const Linear& l, const Weights& w, int64_t n, int64_t rows) {
  const int64_t first_rows = lesser(kRows, rows), depth = steps_of(l.depth) * kColumns;
  const uint16_t* x = l.packed + n * depth;
  const uint16_t* x_next = x + first_rows * depth;
  const int64_t x_bytes = 4 * first_rows, x_next_bytes = 4 * (rows - first_rows);
  _tile_zero(0);
  if constexpr (right > 1) _tile_zero(1);
  if constexpr (left > 1) _tile_zero(2);
  if constexpr (left > 1 && right > 1) _tile_zero(3);
  for (int64_t k = 0; k < l.depth; k += kColumns) {
    const bool whole = k + kColumns <= l.depth;
    const uint16_t* from = whole ? w.rows + k : w.rest;
    const int64_t stride = whole ? w.stride : kColumns;
    _tile_loadd(6, x + k * first_rows, x_bytes);
    _tile_loadd(4, from, 2 * stride);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (right > 1) {
      _tile_loadd(7, x_next + k * (rows - first_rows), x_next_bytes);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (left > 1) {
      _tile_loadd(5, from + kRows * stride, 2 * stride);
      _tile_dpbf16ps(2, 5, 6);
    }
    if constexpr (left > 1 && right > 1) _tile_dpbf16ps(3, 5, 7);
  }
}

TILES void store_tiles(const Linear& l, int64_t v, int64_t count, int64_t n, int64_t rows) {
  alignas(64) float sums[4][kRows * kRows];
  const bool more_rows = rows > kRows, more_weights = count > kRows;
  _tile_stored(0, sums[0], 4 * kRows);
  if (more_rows) _tile_stored(1, sums[1], 4 * kRows);
  if (more_weights) _tile_stored(2, sums[2], 4 * kRows);
  if (more_rows && more_weights) _tile_stored(3, sums[3], 4 * kRows);
  for (int64_t i = 0; i * kRows < count; ++i) {
    for (int64_t j = 0; j * kRows < rows; ++j) {
      store(l, sums[2 * i + j], v + i * kRows, lesser(kRows, count - i * kRows), n + j * kRows,
            lesser(kRows, rows - j * kRows));
    }
  }
}

bool ask_for_tiles() {
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 22 & 1) || !(d >> 24 & 1)) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // Linux gives a process its tiles when asked, since 5.16
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace

bool available() {
  static const bool answer = ask_for_tiles();
  return answer;
}

void pack_group(const Linear& l, const uint16_t* x, int64_t stride, uint16_t* packed, int64_t group) {
  const int64_t first = group * kRows, rows = lesser(kRows, l.num_rows - first);
  const int64_t depth = steps_of(l.depth) * kColumns;
  uint16_t* to = packed + first * depth;
  for (int64_t k = 0; k < depth; k += 2) {
    for (int64_t n = 0; n < rows; ++n, to += 2) {
      const uint16_t* from = x + (first + n) * stride + k;
      to[0] = k < l.depth ? from[0] : 0;
      to[1] = k + 1 < l.depth ? from[1] : 0;
    }
  }
}

TILES void multiply(const Linear& l, int64_t first, int64_t end) {
  Configured tiles;
  for (int64_t v = first; v < end; v += kBlock) {
    const int64_t count = lesser(kBlock, end - v);
    const Weights weights(l, v, count);
    for (int64_t n = 0; n < l.num_rows; n += kBlock) {
      const int64_t rows = lesser(kBlock, l.num_rows - n);
      tiles.configure(count, rows);
      if (count > kRows && rows > kRows) {
        multiply_tiles<2, 2>(l, weights, n, rows);
      } else if (count > kRows) {
        multiply_tiles<2, 1>(l, weights, n, rows);
      } else if (rows > kRows) {
        multiply_tiles<1, 2>(l, weights, n, rows);
      } else {
        multiply_tiles<1, 1>(l, weights, n, rows);
      }
      store_tiles(l, v, count, n, rows);
    }
  }
}

#endif

}  // namespace vllm_rast::amx
