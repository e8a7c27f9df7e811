// What the bindings of kernels that sample share: tensors in, lines out, tiles on torch's own threads.
#pragma once

#include <cmath>
#include <vector>

#include "binding.h"
#include "lines.h"

namespace vllm_rast {

constexpr int64_t kTilesPerThread = 12;  // of 2 microseconds each

// Runs `work(line, tile)` for every tile, in order within a thread.
template <typename Work>
void for_tiles(int64_t num_lines, int64_t tiles, const Work& work) {
  torch::stable::parallel_for(0, num_lines * tiles, kTilesPerThread, [&](int64_t first, int64_t end) {
    for (int64_t i = first; i < end; ++i) work(i / tiles, i % tiles);
  });
}

// A whole line's largest logit, and its sum in double.
struct LineMass {
  float max;
  double sum;

  double log_sum_exp() const { return max + std::log(sum); }
};

// From the line's tiles, always in the same order.
inline LineMass add_up(const Mass* parts, int64_t tiles) {
  LineMass whole{-HUGE_VALF, 0};
  for (int64_t i = 0; i < tiles; ++i) whole.max = std::fmax(whole.max, parts[i].max);
  for (int64_t i = 0; i < tiles; ++i) whole.sum += parts[i].sum * rescale<double>(parts[i].max, whole.max);
  return whole;
}

template <typename Number>
const Number* check_numbers(const Tensor& numbers, ScalarType type, const char* name, int64_t count) {
  STD_TORCH_CHECK(
      numbers.dim() == 1 && numbers.size(0) == count && numbers.scalar_type() == type && numbers.is_contiguous(), name,
      ": must be ", type == ScalarType::Float ? "float32" : "int64", " [", count, "], dense");
  return static_cast<const Number*>(numbers.data_ptr());
}

inline const int64_t* check_integers(const Tensor& numbers, const char* name, int64_t count) {
  return check_numbers<int64_t>(numbers, ScalarType::Long, name, count);
}

inline const float* check_floats(const Tensor& numbers, const char* name, int64_t count) {
  return check_numbers<float>(numbers, ScalarType::Float, name, count);
}

inline Lines check_lines(const Tensor& logits, const char* name) {
  STD_TORCH_CHECK(logits.dim() == 2 && logits.scalar_type() == ScalarType::Float, name, ": must be a float32 matrix");
  check_matrix(logits, name, logits.size(0));
  return {static_cast<const float*>(logits.data_ptr()), logits.stride(0), logits.size(1)};
}

}  // namespace vllm_rast
