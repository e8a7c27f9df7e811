// A linear layer with bfloat16 weights and float32 sums: out[n, v] = bias[v] + sum over k of x[n, k] * weight[v, k].
// What the launcher takes; nothing here or in the kernel knows torch.
#pragma once

#include <cstdint>

namespace vllm_rast {

struct Linear {
  const void* x;           // [blocks, num_rows, kBlockBytes], as lay_out_row of the same instruction set left it
  const uint16_t* packed;  // in its place for AMX: as pack_group left it
  int64_t num_rows;
  const uint16_t* weight;  // [width, depth] in bfloat16, columns beside one another
  int64_t weight_row_stride;
  const float* bias;  // [width], or nullptr
  int64_t width, depth;
  void* out;    // [num_rows, width], dense, float32 or bfloat16
  bool rounds;  // whether out is bfloat16
};

// Columns that are worked through at a time are so many bytes of factors of a row, so that all they meet stays in the
// first cache: 12 kB of weights and, of the rows of x, a few kB. A multiple of two vectors of every instruction set.
constexpr int64_t kBlockBytes = 1024;

// Weight rows that meet x together, far from one another (see linear_cpu.cpp).
constexpr int64_t kBlockRows = 12;
// Rows of x that take part at a time, so that what they need of a block of columns stays in the second cache: 256 kB of
// x and up to 192 kB of sums.
constexpr int64_t kChunkRows = 256;
// Up to so many rows of x meet the weights as they come from memory.
constexpr int64_t kFewRows = 12;
// Floats of a thread's own memory, zeros at first, at a multiple of 64 bytes: widened weights, and sums of up to 16
// lanes for every number of a chunk and a block. A few rows need none.
inline int64_t scratch_size(int64_t num_rows) {
  if (num_rows <= kFewRows) return 0;
  return kBlockRows * (kBlockBytes / sizeof(float) + 16 * (num_rows < kChunkRows ? num_rows : kChunkRows));
}

// The result's columns [first, end), which is the work of one thread.
using Multiply = void (*)(const Linear&, float* scratch, int64_t first, int64_t end);

// One row of bfloat16, [depth], in pieces of kBlockBytes, `stride` bytes apart, zeros beyond depth: widened to float32,
// in an order of columns of the instruction set's own, or as it is for avx512bf16.
using LayOutRow = void (*)(const uint16_t* from, void* to, int64_t stride, int64_t depth);

namespace baseline {
void multiply(const Linear&, float* scratch, int64_t first, int64_t end);
void lay_out_row(const uint16_t* from, void* to, int64_t stride, int64_t depth);
}  // namespace baseline
namespace avx2 {
void multiply(const Linear&, float* scratch, int64_t first, int64_t end);
void lay_out_row(const uint16_t* from, void* to, int64_t stride, int64_t depth);
}  // namespace avx2
namespace avx512 {
void multiply(const Linear&, float* scratch, int64_t first, int64_t end);
void lay_out_row(const uint16_t* from, void* to, int64_t stride, int64_t depth);
}  // namespace avx512
namespace avx512bf16 {
void multiply(const Linear&, float* scratch, int64_t first, int64_t end);
void lay_out_row(const uint16_t* from, void* to, int64_t stride, int64_t depth);
}  // namespace avx512bf16
namespace amx {
// Whether the processor has AMX and the system gives it to this process, which is asked once.
bool available();
// Packs 16 rows of x, or fewer at its end, from row 16 * group on, into their place of `packed`, [num_rows, depth
// rounded up to 32]: pairs of columns, each with those of all 16 rows. stride: of x, whose columns lie side by side.
void pack_group(const Linear&, const uint16_t* x, int64_t stride, uint16_t* packed, int64_t group);
void multiply(const Linear&, int64_t first, int64_t end);
constexpr int64_t kGroupRows = 16, kDepthMultiple = 32;
}  // namespace amx

}  // namespace vllm_rast
