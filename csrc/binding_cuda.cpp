// torch.ops.vllm_rast.combine_logits on CUDA: the caller's device and current stream, nothing waited for.
#include <torch/csrc/stable/accelerator.h>

#include "binding.h"

// torch's headers declare it only if CUDA's own headers are used, which this file does not need.
extern "C" int32_t aoti_torch_get_current_cuda_stream(int32_t device_index, void** ret_stream);

namespace vllm_rast {
namespace {

void* current_stream(int32_t device) {
  void* stream = nullptr;
  STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream(device, &stream) == 0, "no current CUDA stream");
  return stream;
}

void check_devices(const std::vector<Tensor>& logits, const Tensor& weights, const Tensor& out) {
  const int32_t device = out.get_device_index();
  STD_TORCH_CHECK(weights.get_device_index() == device, "weights: must be on the device of out");
  for (const Tensor& tensor : logits) {
    STD_TORCH_CHECK(tensor.get_device_index() == device, "logits: must be on the device of out");
  }
}

void check_launch(int error) { STD_TORCH_CHECK(error == 0, "combine_logits: ", cuda_error_text(error)); }

void combine_logits(std::vector<Tensor> logits, Tensor weights, Tensor out) {
  std::vector<ModelLogits> models;
  const Combination combination = describe(logits, weights, out, models);
  check_devices(logits, weights, out);
  const torch::stable::accelerator::DeviceGuard guard(out.get_device_index());
  check_launch(combine_on_cuda(combination, current_stream(out.get_device_index())));
}

void combine_logits_traced(std::vector<Tensor> logits, Tensor weights, Tensor out, Tensor trace) {
  std::vector<ModelLogits> models;
  const Combination combination = describe(logits, weights, out, models);
  check_devices(logits, weights, out);
  STD_TORCH_CHECK(!models.empty(), "logits: a trace needs a base");
  float* const rows = check_trace(trace, out);
  STD_TORCH_CHECK(trace.get_device_index() == out.get_device_index(), "trace: must be on the device of out");
  const torch::stable::accelerator::DeviceGuard guard(out.get_device_index());
  // From torch's own pool, so that a graph may hold it; reused in the order of this stream after it is let go.
  const Tensor parts = torch::stable::new_empty(
      out, {combination.num_rows * trace_parts(combination.vocab) * static_cast<int64_t>(sizeof(TracePart) / 4)});
  check_launch(combine_on_cuda_traced(combination, static_cast<TracePart*>(parts.data_ptr()), rows,
                                      current_stream(out.get_device_index())));
}

}  // namespace
}  // namespace vllm_rast

STABLE_TORCH_LIBRARY_IMPL(vllm_rast, CUDA, library) {
  library.impl("combine_logits", TORCH_BOX(&vllm_rast::combine_logits));
  library.impl("combine_logits_traced", TORCH_BOX(&vllm_rast::combine_logits_traced));
}
