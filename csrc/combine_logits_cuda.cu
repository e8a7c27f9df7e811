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
      x[i] =
          model.type == LogitsType::bfloat16 ? __uint_as_float(static_cast<uint32_t>(bits) << 16) : half_to_float(bits);
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

// exp(x - largest), 0 for -inf even if that is the largest.
__device__ float share_of(float x, float largest) { return expf(x - (largest == -INFINITY ? 0 : largest)); }

// What eight neighbours add to a trace. A nan is never larger, so it stays out of the largest and in the sums.
__device__ void add_to_trace(const float* base, const float* mix, TracePart& part) {
  float base_max = part.base_max, mix_max = part.mix_max;
  for (int i = 0; i < kColumns; ++i) {
    base_max = fmaxf(base_max, base[i]);
    mix_max = fmaxf(mix_max, mix[i]);
  }
  const float base_scale = rescale(part.base_max, base_max), mix_scale = rescale(part.mix_max, mix_max);
  part = {base_max, part.base_sum * base_scale, mix_max, part.mix_sum * mix_scale, part.moved * mix_scale};
  for (int i = 0; i < kColumns; ++i) {
    const float share = share_of(mix[i], mix_max);
    part.base_sum += share_of(base[i], base_max);
    part.mix_sum += share;
    if (share != 0) part.moved += share * (mix[i] - base[i]);  // -inf - -inf is nan
  }
}

__device__ TracePart merge(const TracePart& one, const TracePart& other) {
  const float base_max = fmaxf(one.base_max, other.base_max), mix_max = fmaxf(one.mix_max, other.mix_max);
  const float share = rescale(one.mix_max, mix_max), other_share = rescale(other.mix_max, mix_max);
  return {base_max, one.base_sum * rescale(one.base_max, base_max) + other.base_sum * rescale(other.base_max, base_max),
          mix_max, one.mix_sum * share + other.mix_sum * other_share, one.moved * share + other.moved * other_share};
}

// The first lane's result holds all of the warp, always merged in the same order.
__device__ TracePart merge_warp(TracePart part) {
  for (int distance = 16; distance > 0; distance /= 2) {
    const TracePart other = {
        __shfl_down_sync(~0u, part.base_max, distance), __shfl_down_sync(~0u, part.base_sum, distance),
        __shfl_down_sync(~0u, part.mix_max, distance), __shfl_down_sync(~0u, part.mix_sum, distance),
        __shfl_down_sync(~0u, part.moved, distance)};
    part = merge(part, other);
  }
  return part;
}

__device__ TracePart no_part() { return {-INFINITY, 0, -INFINITY, 0, 0}; }

// The first thread's result holds all of the block.
__device__ TracePart merge_block(TracePart part) {
  __shared__ TracePart warps[kThreads / 32];
  part = merge_warp(part);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = part;
  __syncthreads();
  for (int i = 1; threadIdx.x == 0 && i < kThreads / 32; ++i) part = merge(part, warps[i]);
  __syncthreads();  // before the next row writes there
  return part;
}

// Columns [v, end) one by one, at most eight of them.
template <bool traced>
__device__ void combine_few(const Arguments& a, const float* weights, int64_t n, int64_t v, int64_t end, int64_t known,
                            float* out, TracePart& part) {
  float base[kColumns], mix[kColumns];
  for (int i = 0; i < kColumns; ++i) base[i] = mix[i] = -INFINITY;
  for (int i = 0; v + i < end; ++i) {
    if (traced && v + i < a.models[0].width) base[i] = element(a.models[0], n * a.models[0].row_stride + v + i);
    if (v + i < known) mix[i] = combine_one(a, weights, n, v + i);
    out[v + i] = mix[i];
  }
  if (traced) add_to_trace(base, mix, part);
}

template <bool traced>
__global__ void __launch_bounds__(kThreads) combine(const __grid_constant__ Arguments a, TracePart* parts) {
  const Combination& c = a.combination;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads * kColumns;
  for (int64_t n = blockIdx.y; n < c.num_rows; n += gridDim.y) {
    const float* weights = c.weights + n * c.weight_row_stride;
    float* out = c.out + n * c.out_row_stride;
    TracePart part = no_part();
    int64_t known = c.vocab;  // columns that every model of this row has
    for (int m = 0; m < c.num_models; ++m) {
      if (weights[m * c.weight_model_stride] != 0 && a.models[m].width < known) known = a.models[m].width;
    }
    // Up to three columns bring `out` to a 16-byte boundary; the first thread of the first block does them one by one.
    const int64_t to_boundary = (16 - reinterpret_cast<uintptr_t>(out) % 16) % 16 / sizeof(float);
    const int64_t head = to_boundary < c.vocab ? to_boundary : c.vocab;
    if (blockIdx.x == 0 && threadIdx.x == 0 && head > 0) combine_few<traced>(a, weights, n, 0, head, known, out, part);
    int64_t v = head + (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kColumns;
    for (; v < c.vocab; v += stride) {
      if (v + kColumns <= known && (!traced || v + kColumns <= a.models[0].width)) {
        float base[kColumns], sums[kColumns];
        if (traced) load(a.models[0], n * a.models[0].row_stride + v, base);  // before `out` may take its place
        combine_eight(a, weights, n, v, sums);
        reinterpret_cast<float4*>(out + v)[0] = make_float4(sums[0], sums[1], sums[2], sums[3]);
        reinterpret_cast<float4*>(out + v)[1] = make_float4(sums[4], sums[5], sums[6], sums[7]);
        if (traced) add_to_trace(base, sums, part);
      } else {
        combine_few<traced>(a, weights, n, v, v + kColumns < c.vocab ? v + kColumns : c.vocab, known, out, part);
      }
    }
    if (traced) {
      part = merge_block(part);
      if (threadIdx.x == 0) parts[n * gridDim.x + blockIdx.x] = part;
    }
  }
}

// One warp for each row.
__global__ void finish_trace(const TracePart* parts, int64_t parts_per_row, int64_t num_rows, float* trace) {
  for (int64_t n = blockIdx.x; n < num_rows; n += gridDim.x) {
    TracePart part = no_part();
    for (int64_t i = threadIdx.x; i < parts_per_row; i += 32) part = merge(part, parts[n * parts_per_row + i]);
    part = merge_warp(part);
    if (threadIdx.x == 0) {
      write_trace(part.base_max, part.base_sum, part.mix_max, part.mix_sum, part.moved, trace + n * kTraceColumns);
    }
  }
}

template <bool traced>
void launch(const Combination& c, TracePart* parts, cudaStream_t stream) {
  Arguments arguments{c, {}};
  std::memcpy(arguments.models, c.models, c.num_models * sizeof(ModelLogits));
  const dim3 grid(static_cast<unsigned>(trace_parts(c.vocab)),
                  static_cast<unsigned>(c.num_rows < kMaxBlocks - 1 ? c.num_rows : kMaxBlocks - 1));
  combine<traced><<<grid, kThreads, 0, stream>>>(arguments, parts);
}

}  // namespace

// Blocks across a row: each leaves one part of its trace.
int64_t trace_parts(int64_t vocab) {
  const int64_t per_block = kThreads * kColumns, across = (vocab + per_block - 1) / per_block;
  return across < kMaxBlocks ? across : kMaxBlocks;
}

int combine_on_cuda(const Combination& c, void* stream) {
  if (c.num_rows == 0 || c.vocab == 0) return cudaSuccess;
  launch<false>(c, nullptr, static_cast<cudaStream_t>(stream));
  return static_cast<int>(cudaGetLastError());
}

int combine_on_cuda_traced(const Combination& c, TracePart* parts, float* trace, void* stream) {
  if (c.num_rows == 0) return cudaSuccess;
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  if (c.vocab > 0) launch<true>(c, parts, cuda_stream);
  const auto blocks = static_cast<unsigned>(c.num_rows < kMaxBlocks ? c.num_rows : kMaxBlocks);
  finish_trace<<<blocks, 32, 0, cuda_stream>>>(parts, trace_parts(c.vocab), c.num_rows, trace);
  return static_cast<int>(cudaGetLastError());
}

const char* cuda_error_text(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

}  // namespace vllm_rast
