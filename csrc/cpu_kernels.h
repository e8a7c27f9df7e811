// The CPU's kernels for one instruction set, all of them chosen at once.
#pragma once

#include "combine_logits.h"
#include "draw.h"
#include "linear.h"
#include "truncate.h"

namespace vllm_rast {

struct CpuKernels {
  const char* name;
  bool supported;
  CombineTiles combine_tiles;
  Multiply multiply;  // not for amx, which has a layout of its own
  LayOutRow lay_out_row;
  int64_t number_bytes;  // of x as laid out
  const DrawKernels& draw;
  const TruncateKernels& truncate;
};

// Those in use.
const CpuKernels& cpu_kernels();

}  // namespace vllm_rast
