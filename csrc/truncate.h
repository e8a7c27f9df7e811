// Top-k and top-p without sorting: rows of logits of which all but the likeliest ids become -inf. What the kernels do
// with a tile; nothing here or in the kernels knows torch.
#pragma once

#include <cstdint>

#include "lines.h"

namespace vllm_rast {

constexpr int64_t kPeaks = 32;  // of a tile: the largest logit of each of so many parts of it

struct TruncateKernels {
  Mass (*mass)(const Lines&, int64_t line, int64_t tile);
  // to: [kPeaks].
  void (*peaks)(const Lines&, int64_t line, int64_t tile, float* to);
  // The tile's logits of at least `bound`, in order, into `to`, [kTileColumns]; how many.
  int64_t (*collect)(const Lines&, int64_t line, int64_t tile, float bound, float* to);
  // Of `count` logits, the sum of exp(logit - max).
  float (*sum)(const float* logits, int64_t count, float max);
  // Makes the tile's logits below `threshold` -inf.
  void (*cut)(const Lines&, int64_t line, int64_t tile, float threshold);
};

namespace baseline {
extern const TruncateKernels truncate_kernels;
}
namespace avx2 {
extern const TruncateKernels truncate_kernels;
}
namespace avx512 {
extern const TruncateKernels truncate_kernels;
}

}  // namespace vllm_rast
