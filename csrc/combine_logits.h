// out[n, v] = sum over m of weight[n, m] * logits_m[n, v]: what the launchers take. Nothing here or in the kernels
// knows torch.
//
// Every implementation keeps to the same rules, in the same order of rounding, so all give the same bits:
// - float32 products, added model by model (no fused multiply-add);
// - a model of weight 0 is not read in that row; a row without any model is -0.0;
// - columns at or beyond the width of a model that takes part are -inf;
// - out may be one of the logits (same address and stride), and no other overlap is allowed.
#pragma once

#include <cstdint>

#include "trace.h"

namespace vllm_rast {

// The models' descriptions travel in a CUDA launch's arguments, so that graphs may replay it.
constexpr int64_t kMaxModels = 16;

enum class LogitsType : int32_t { float32, bfloat16, float16 };

struct ModelLogits {
  const void* data;    // [num_rows, width], columns beside one another
  int64_t row_stride;  // in elements
  int64_t width;       // in elements; columns beyond `vocab` are ignored
  LogitsType type;
};

struct Combination {
  const ModelLogits* models;  // [num_models], in host memory
  int64_t num_models;         // at most kMaxModels
  const float* weights;       // [num_rows, num_models]
  int64_t weight_row_stride, weight_model_stride;
  float* out;  // [num_rows, vocab], columns beside one another
  int64_t out_row_stride;
  int64_t num_rows, vocab;
};

// CPU: the work is num_rows * tiles_per_row tiles, which may be done in any order and by any thread.
constexpr int64_t kTileColumns = 2048;  // 8 KB of sums: stays in the first-level cache
inline int64_t tiles_per_row(int64_t vocab) { return (vocab + kTileColumns - 1) / kTileColumns; }

// parts: nullptr, or [num_rows * tiles_per_row] to be filled for a trace, whose base is the first model.
using CombineTiles = void (*)(const Combination&, TracePart* parts, int64_t first_tile, int64_t end_tile);

namespace baseline {
void combine_tiles(const Combination&, TracePart* parts, int64_t first_tile, int64_t end_tile);
}
namespace avx2 {
void combine_tiles(const Combination&, TracePart* parts, int64_t first_tile, int64_t end_tile);
}
namespace avx512 {
void combine_tiles(const Combination&, TracePart* parts, int64_t first_tile, int64_t end_tile);
}

// CUDA: queues the work on `stream` (a cudaStream_t) and returns a cudaError_t; never waits, allocates nothing.
int combine_on_cuda(const Combination&, void* stream);
// The same with a trace, [num_rows, kTraceColumns] in float32, dense; parts: room for num_rows * trace_parts(vocab).
int combine_on_cuda_traced(const Combination&, TracePart* parts, float* trace, void* stream);
int64_t trace_parts(int64_t vocab);
const char* cuda_error_text(int error);

}  // namespace vllm_rast
