// A linear layer with bfloat16 weights and float32 sums: out[n, v] = bias[v] + sum over k of x[n, k] * weight[v, k].
// What the launcher takes; nothing here or in the kernel knows torch.
#pragma once

#include <cstdint>

namespace vllm_rast {

struct Linear {
  const float* x;  // [num_rows, padded_depth], as widen_row of the same instruction set left it
  int64_t num_rows;
  const uint16_t* weight;  // [width, depth] in bfloat16, columns beside one another
  int64_t weight_row_stride;
  const float* bias;  // [width], or nullptr
  int64_t width, depth, padded_depth;
  void* out;    // [num_rows, width], dense, float32 or bfloat16
  bool rounds;  // whether out is bfloat16
};

// A multiple of two vectors of every instruction set.
constexpr int64_t kDepthStep = 32;
inline int64_t padded(int64_t depth) { return (depth + kDepthStep - 1) / kDepthStep * kDepthStep; }

// The work is linear_blocks(width) blocks of weight rows, which may be done in any order and by any thread.
constexpr int64_t kBlockRows = 12;
inline int64_t linear_blocks(int64_t width) { return (width + kBlockRows - 1) / kBlockRows; }

// scratch: [kBlockRows, padded_depth], the thread's own.
using MultiplyBlocks = void (*)(const Linear&, float* scratch, int64_t first_block, int64_t end_block);

// One row of bfloat16, [depth], to float32, [padded_depth]: in an order of columns of the instruction set's own, zeros
// beyond depth.
using WidenRow = void (*)(const uint16_t* from, float* to, int64_t depth);

namespace baseline {
void multiply_blocks(const Linear&, float* scratch, int64_t first_block, int64_t end_block);
void widen_row(const uint16_t* from, float* to, int64_t depth);
}  // namespace baseline
namespace avx2 {
void multiply_blocks(const Linear&, float* scratch, int64_t first_block, int64_t end_block);
void widen_row(const uint16_t* from, float* to, int64_t depth);
}  // namespace avx2
namespace avx512 {
void multiply_blocks(const Linear&, float* scratch, int64_t first_block, int64_t end_block);
void widen_row(const uint16_t* from, float* to, int64_t depth);
}  // namespace avx512

}  // namespace vllm_rast
