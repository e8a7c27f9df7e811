// What both bindings share: tensors in, a Combination out. torch's stable ABI only, so one build serves every torch
// from 2.10 on.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <vector>

#include "combine_logits.h"

namespace vllm_rast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline LogitsType logits_type(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return LogitsType::float32;
    case ScalarType::BFloat16:
      return LogitsType::bfloat16;
    case ScalarType::Half:
      return LogitsType::float16;
    default:
      STD_TORCH_CHECK(false, "logits: must be float32, bfloat16 or float16");
  }
}

inline void check_matrix(const Tensor& tensor, const char* name, int64_t num_rows) {
  STD_TORCH_CHECK(tensor.dim() == 2 && tensor.size(0) == num_rows, name, ": must have ", num_rows, " rows");
  STD_TORCH_CHECK(tensor.stride(1) == 1 || tensor.size(1) <= 1, name, ": columns must lie beside one another");
}

// The models' descriptions go into `models`, which must live as long as the result.
inline Combination describe(const std::vector<Tensor>& logits, const Tensor& weights, const Tensor& out,
                            std::vector<ModelLogits>& models) {
  STD_TORCH_CHECK(out.dim() == 2 && out.scalar_type() == ScalarType::Float, "out: must be a float32 matrix");
  const int64_t num_rows = out.size(0);
  const int64_t num_models = static_cast<int64_t>(logits.size());
  STD_TORCH_CHECK(num_models <= kMaxModels, "logits: more than 16 models");
  check_matrix(out, "out", num_rows);
  STD_TORCH_CHECK(weights.scalar_type() == ScalarType::Float && weights.dim() == 2 && weights.size(0) == num_rows &&
                      weights.size(1) == num_models,
                  "weights: must be float32 [", num_rows, ", ", num_models, "]");
  STD_TORCH_CHECK(weights.is_cuda() == out.is_cuda(), "weights: must be on the device of out");
  for (const Tensor& tensor : logits) {
    check_matrix(tensor, "logits", num_rows);
    STD_TORCH_CHECK(tensor.is_cuda() == out.is_cuda(), "logits: must be on the device of out");
    models.push_back({tensor.data_ptr(), tensor.stride(0), tensor.size(1), logits_type(tensor)});
  }
  return {models.data(),     num_models,        static_cast<const float*>(weights.data_ptr()),
          weights.stride(0), weights.stride(1), static_cast<float*>(out.data_ptr()),
          out.stride(0),     num_rows,          out.size(1)};
}

// The trace's numbers, [num_rows, kTraceColumns].
inline float* check_trace(const Tensor& trace, const Tensor& out) {
  const bool fits = trace.dim() == 2 && trace.size(0) == out.size(0) && trace.size(1) == kTraceColumns;
  STD_TORCH_CHECK(fits && trace.scalar_type() == ScalarType::Float && trace.is_contiguous(), "trace: must be float32 [",
                  out.size(0), ", ", kTraceColumns, "], dense");
  STD_TORCH_CHECK(trace.is_cuda() == out.is_cuda(), "trace: must be on the device of out");
  return static_cast<float*>(trace.data_ptr());
}

}  // namespace vllm_rast
