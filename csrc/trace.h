// How far the mix moves each row away from the base: what the kernels keep of a part of a row, and how a row's parts
// become its trace. Knows no torch.
//
// A trace is five float32: largest logit and log-sum-exp of the base, the same of the mix, and KL(mix || base) in nats.
// - Columns of -inf hold no probability and add nothing, so padding does no harm.
// - A nan or +inf has no softmax: nan in all that it touches.
// - Sums are relative to the part's largest logit, so nothing overflows.
#pragma once

#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#define VLLM_RAST_EVERYWHERE __host__ __device__
#else
#define VLLM_RAST_EVERYWHERE
#endif

namespace vllm_rast {

constexpr int64_t kTraceColumns = 5;

struct TracePart {
  float base_max;  // nans left out; -inf if there is nothing else
  float base_sum;  // of exp(base - base_max)
  float mix_max, mix_sum;
  float moved;  // sum of exp(mix - mix_max) * (mix - base)
};

// exp(max - larger) for the sum that belongs to `max`; 1 if both are the same infinity.
template <class Float>
VLLM_RAST_EVERYWHERE Float rescale(Float max, Float larger) {
  return max == larger ? 1 : exp(max - larger);
}

// With p the mix's softmax and q the base's: KL = sum p (log p - log q) = sum p (mix - base) - (lse_mix - lse_base).
VLLM_RAST_EVERYWHERE inline void write_trace(float base_max, double base_sum, float mix_max, double mix_sum,
                                             double moved, float* trace) {
  const double base_lse = base_max + log(base_sum), mix_lse = mix_max + log(mix_sum);
  const double kl = moved / mix_sum - (mix_lse - base_lse);
  trace[0] = base_sum == base_sum ? base_max : static_cast<float>(base_sum);
  trace[1] = static_cast<float>(base_lse);
  trace[2] = mix_sum == mix_sum ? mix_max : static_cast<float>(mix_sum);
  trace[3] = static_cast<float>(mix_lse);
  trace[4] = static_cast<float>(kl < 0 ? 0 : kl);  // below 0 by rounding alone
}

}  // namespace vllm_rast
