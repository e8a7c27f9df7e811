// Samples of rows of logits: the id with the largest sum of logit and Gumbel noise. What the launcher takes and what
// the kernels leave of a tile; nothing here or in the kernels knows torch.
#pragma once

#include <cstdint>

#include "lines.h"

namespace vllm_rast {

// The id that wins so far. Logit and noise stand apart, so that noise does not drown in large logits.
struct Best {
  double logit, noise;
  int64_t id = -1;  // none yet

  bool loses_to(double other_logit, double other_noise) const {
    return id < 0 || (other_logit - logit) + other_noise > noise;
  }
};

// A line's softmax is exp(logit - max) * scale.
struct Softmax {
  float max, scale;
};

// A tile is the columns from tile * kTileColumns on of a line; `best` is what won in the same line's earlier tiles, as
// far as the caller knows, and is replaced if this tile has a winner.
struct DrawKernels {
  Mass (*mass)(const Lines&, int64_t line, int64_t tile);
  // key: mixed(seed of the line's noise).
  Mass (*draw)(const Lines&, int64_t line, int64_t tile, uint64_t key, Best& best);
  // From what p's softmax has more than q's.
  void (*draw_rest)(const Lines& p, const Lines& q, Softmax of_p, Softmax of_q, int64_t line, int64_t tile,
                    uint64_t key, Best& best);
};

namespace baseline {
extern const DrawKernels draw_kernels;
}
namespace avx2 {
extern const DrawKernels draw_kernels;
}
namespace avx512 {
extern const DrawKernels draw_kernels;
}

}  // namespace vllm_rast
