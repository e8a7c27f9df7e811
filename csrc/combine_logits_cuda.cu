// The CUDA kernel: one pass over all models, eight columns for each thread, 16 bytes for each access where a row's
// address allows.
#include <cuda_runtime.h>

#include <cstring>

#include "combine_logits.h"

namespace vllm_rast {
namespace {

constexpr int kThreads = 128;
constexpr int kColumns = 8;  // 16 bytes of bfloat16, 32 of float32
constexpr int64_t kMaxBlocks = 1 << 16;

struct Arguments {
  Combination combination;  // its `models` points to host memory: the copies below are used
  ModelLogits models[kMaxModels];
};

// fp16 to fp32, exact, without cuda_fp16.h
__device__ float half_to_float(uint16_t x) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(x));
  return value;
}

__device__ float element(const ModelLogits& model, int64_t at) {
  if (model.type == LogitsType::float32) return static_cast<const float*>(model.data)[at];
  const uint16_t x = static_cast<const uint16_t*>(model.data)[at];
  return model.type == LogitsType::bfloat16 ? __uint_as_float(static_cast<uint32_t>(x) << 16) : half_to_float(x);
}

// Eight neighbours of a row; `at` counts elements from the model's first.
__device__ void load(const ModelLogits& model, int64_t at, float* x) {
  const int64_t bytes = model.type == LogitsType::float32 ? 4 : 2;
  const char* address = static_cast<const char*>(model.data) + at * bytes;
  if (reinterpret_cast<uintptr_t>(address) % 16 != 0) {
    for (int i = 0; i < kColumns; ++i) x[i] = element(model, at + i);
  } else if (bytes == 4) {
    const float4 low = reinterpret_cast<const float4*>(address)[0];
    const float4 high = reinterpret_cast<const float4*>(address)[1];
    x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w;
    x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
  } else {
    const uint4 pairs = *reinterpret_cast<const uint4*>(address);
    const uint32_t words[4] = {pairs.x, pairs.y, pairs.z, pairs.w};
    for (int i = 0; i < kColumns; ++i) {
      const uint16_t bits = static_cast<uint16_t>(words[i / 2] >> (i % 2 * 16));
      x[i] = model.type == LogitsType::bfloat16 ? __uint_as_float(static_cast<uint32_t>(bits) << 16)
                                                : half_to_float(bits);
    }
  }
}

__device__ float combine_one(const Arguments& a, const float* weights, int64_t n, int64_t v) {
  float sum = -0.0f;
  for (int m = 0; m < a.combination.num_models; ++m) {
    const float weight = weights[m * a.combination.weight_model_stride];
    // __fmul_rn and __fadd_rn are never fused: the same bits as on every other device.
    if (weight != 0) sum = __fadd_rn(sum, __fmul_rn(weight, element(a.models[m], n * a.models[m].row_stride + v)));
  }
  return sum;
}

__device__ void combine_eight(const Arguments& a, const float* weights, int64_t n, int64_t v, float* sums) {
  for (int i = 0; i < kColumns; ++i) sums[i] = -0.0f;
  for (int m = 0; m < a.combination.num_models; ++m) {
    const float weight = weights[m * a.combination.weight_model_stride];
    if (weight == 0) continue;
    float x[kColumns];
    load(a.models[m], n * a.models[m].row_stride + v, x);
    for (int i = 0; i < kColumns; ++i) sums[i] = __fadd_rn(sums[i], __fmul_rn(weight, x[i]));
  }
}

__global__ void __launch_bounds__(kThreads) combine(const __grid_constant__ Arguments a) {
  const Combination& c = a.combination;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads * kColumns;
  for (int64_t n = blockIdx.y; n < c.num_rows; n += gridDim.y) {
    const float* weights = c.weights + n * c.weight_row_stride;
    float* out = c.out + n * c.out_row_stride;
    int64_t known = c.vocab;  // columns that every model of this row has
    for (int m = 0; m < c.num_models; ++m) {
      if (weights[m * c.weight_model_stride] != 0 && a.models[m].width < known) known = a.models[m].width;
    }
    // Up to three columns bring `out` to a 16-byte boundary; the first threads of the first block do them one by one.
    const int64_t head = (16 - reinterpret_cast<uintptr_t>(out) % 16) % 16 / sizeof(float);
    if (blockIdx.x == 0 && threadIdx.x < head && threadIdx.x < c.vocab) {
      out[threadIdx.x] = threadIdx.x < known ? combine_one(a, weights, n, threadIdx.x) : -INFINITY;
    }
    int64_t v = head + (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kColumns;
    for (; v < c.vocab; v += stride) {
      if (v + kColumns <= known) {
        float sums[kColumns];
        combine_eight(a, weights, n, v, sums);
        reinterpret_cast<float4*>(out + v)[0] = make_float4(sums[0], sums[1], sums[2], sums[3]);
        reinterpret_cast<float4*>(out + v)[1] = make_float4(sums[4], sums[5], sums[6], sums[7]);
      } else {
        const int64_t end = v + kColumns < c.vocab ? v + kColumns : c.vocab;
        for (int64_t u = v; u < end; ++u) out[u] = u < known ? combine_one(a, weights, n, u) : -INFINITY;
      }
    }
  }
}

}  // namespace

int combine_on_cuda(const Combination& c, void* stream) {
  if (c.num_rows == 0 || c.vocab == 0) return cudaSuccess;
  Arguments arguments{c, {}};
  std::memcpy(arguments.models, c.models, c.num_models * sizeof(ModelLogits));
  const int64_t per_block = kThreads * kColumns;
  const int64_t across = (c.vocab + per_block - 1) / per_block;
  const dim3 grid(static_cast<unsigned>(across < kMaxBlocks ? across : kMaxBlocks),
                  static_cast<unsigned>(c.num_rows < kMaxBlocks - 1 ? c.num_rows : kMaxBlocks - 1));
  combine<<<grid, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(arguments);
  return static_cast<int>(cudaGetLastError());
}

const char* cuda_error_text(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

}  // namespace vllm_rast
