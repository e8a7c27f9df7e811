// torch.ops.vllm_rast.wide_linear on the CPU: lays x out once, then works through the weight on torch's own threads.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <vector>

#include "cpu_kernels.h"

namespace vllm_rast {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// A thread is worth waking for about 25 microseconds of work: this many multiply-adds, or as many weights from memory.
constexpr int64_t kWorkPerThread = 1 << 19;
constexpr int64_t kRowsFromMemory = 8;  // reading a weight takes as long as multiplying it with this many rows

// x as the kernel takes it.
void lay_out(const Tensor& x, LayOutRow lay_out_row, char* to) {
  const auto* from = static_cast<const uint16_t*>(x.data_ptr());
  const int64_t stride = x.stride(0), num_rows = x.size(0), depth = x.size(1);
  torch::stable::parallel_for(0, num_rows, kWorkPerThread / (depth + 1) + 1, [&](int64_t first, int64_t end) {
    for (int64_t n = first; n < end; ++n) {
      lay_out_row(from + n * stride, to + n * kBlockBytes, num_rows * kBlockBytes, depth);
    }
  });
}

void check(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias) {
  for (const Tensor* matrix : {&x, &weight}) {
    STD_TORCH_CHECK(matrix->dim() == 2 && matrix->scalar_type() == ScalarType::BFloat16 &&
                        (matrix->stride(1) == 1 || matrix->size(1) <= 1),
                    "wide_linear: x and weight must be bfloat16 matrices, columns beside one another");
  }
  STD_TORCH_CHECK(x.size(1) == weight.size(1) && x.size(1) > 0, "wide_linear: x has ", x.size(1), " columns, weight ",
                  weight.size(1));
  if (bias.has_value()) {
    STD_TORCH_CHECK(bias->dim() == 1 && bias->size(0) == weight.size(0) && bias->stride(0) == 1 &&
                        bias->scalar_type() == ScalarType::Float,
                    "wide_linear: bias must be float32 [", weight.size(0), "]");
  }
}

// A thread's share of the result's columns.
template <typename Work>
void share_out(const Linear& linear, const Work& work) {
  const int64_t grain = kWorkPerThread / (linear.depth * (linear.num_rows + kRowsFromMemory) + 1) + 1;
  torch::stable::parallel_for(0, linear.width, grain, work);
}

void multiply_vectors(Linear linear, const Tensor& x) {
  const CpuKernels& kernel = cpu_kernels();
  const int64_t blocks = (linear.depth * kernel.number_bytes + kBlockBytes - 1) / kBlockBytes;
  const Tensor laid_out = torch::stable::new_empty(x, {blocks * linear.num_rows * kBlockBytes}, ScalarType::Byte);
  lay_out(x, kernel.lay_out_row, static_cast<char*>(laid_out.data_ptr()));
  linear.x = laid_out.data_ptr();
  share_out(linear, [&](int64_t first, int64_t end) {
    std::vector<float> memory(scratch_size(linear.num_rows) + 16);
    auto* scratch = reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64);
    kernel.multiply(linear, scratch, first, end);
  });
}

void multiply_tiles(Linear linear, const Tensor& x) {
  const int64_t depth = (linear.depth + amx::kDepthMultiple - 1) / amx::kDepthMultiple * amx::kDepthMultiple;
  const Tensor packed = torch::stable::new_empty(x, {linear.num_rows, depth}, ScalarType::BFloat16);
  auto* const to = static_cast<uint16_t*>(packed.data_ptr());
  const auto* from = static_cast<const uint16_t*>(x.data_ptr());
  const int64_t groups = (linear.num_rows + amx::kGroupRows - 1) / amx::kGroupRows;
  const int64_t grain = kWorkPerThread / (amx::kGroupRows * depth) + 1;
  torch::stable::parallel_for(0, groups, grain, [&](int64_t first, int64_t end) {
    for (int64_t group = first; group < end; ++group) amx::pack_group(linear, from, x.stride(0), to, group);
  });
  linear.packed = to;
  share_out(linear, [&](int64_t first, int64_t end) { amx::multiply(linear, first, end); });
}

Tensor wide_linear(Tensor x, Tensor weight, std::optional<Tensor> bias, bool rounds) {
  check(x, weight, bias);
  const int64_t num_rows = x.size(0), width = weight.size(0);
  const Tensor out = torch::stable::new_empty(x, {num_rows, width}, rounds ? ScalarType::BFloat16 : ScalarType::Float);
  if (num_rows == 0 || width == 0) return out;
  const Linear linear{nullptr,
                      nullptr,
                      num_rows,
                      static_cast<const uint16_t*>(weight.data_ptr()),
                      weight.stride(0),
                      bias.has_value() ? static_cast<const float*>(bias->data_ptr()) : nullptr,
                      width,
                      weight.size(1),
                      out.data_ptr(),
                      rounds};
  if (cpu_kernels().multiply == nullptr) {
    multiply_tiles(linear, x);
  } else {
    multiply_vectors(linear, x);
  }
  return out;
}

}  // namespace
}  // namespace vllm_rast

STABLE_TORCH_LIBRARY_IMPL(vllm_rast, CPU, library) { library.impl("wide_linear", TORCH_BOX(&vllm_rast::wide_linear)); }
