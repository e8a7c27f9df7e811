// Rows of logits that are sampled from, a tile of columns at a time; nothing here knows torch.
#pragma once

#include <cstdint>

#include "combine_logits.h"

namespace vllm_rast {

// A line is one row of logits over its temperature.
struct Lines {
  const float* data;  // [any number of rows, width], columns beside one another
  int64_t row_stride;
  int64_t width;
  const int64_t* rows = nullptr;        // the row of each line; lines are rows if there are none
  const float* temperatures = nullptr;  // of each line; 1 if there are none, and 0 counts as 1
};

// Of a part of a line: its largest logit and the sum of exp(logit - max).
struct Mass {
  float max, sum;
};

}  // namespace vllm_rast
