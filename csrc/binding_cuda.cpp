// torch.ops.vllm_rast.combine_logits on CUDA: the caller's device and current stream, nothing waited for.
#include <torch/csrc/stable/accelerator.h>

#include "binding.h"

// torch's headers declare it only where CUDA's own headers are used, which this file does not need.
extern "C" int32_t aoti_torch_get_current_cuda_stream(int32_t device_index, void** ret_stream);

namespace vllm_rast {
namespace {

void combine_logits(std::vector<Tensor> logits, Tensor weights, Tensor out) {
  std::vector<ModelLogits> models;
  const Combination combination = describe(logits, weights, out, models);
  const int32_t device = out.get_device_index();
  STD_TORCH_CHECK(weights.get_device_index() == device, "weights: must be on the device of out");
  for (const Tensor& tensor : logits) {
    STD_TORCH_CHECK(tensor.get_device_index() == device, "logits: must be on the device of out");
  }
  const torch::stable::accelerator::DeviceGuard guard(device);
  void* stream = nullptr;
  STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream(device, &stream) == 0, "no current CUDA stream");
  const int error = combine_on_cuda(combination, stream);
  STD_TORCH_CHECK(error == 0, "combine_logits: ", cuda_error_text(error));
}

}  // namespace
}  // namespace vllm_rast

STABLE_TORCH_LIBRARY_IMPL(vllm_rast, CUDA, library) {
  library.impl("combine_logits", TORCH_BOX(&vllm_rast::combine_logits));
}
