// torch.ops.vllm_rast.combine_logits on the CPU: picks the instruction set once, works on torch's own threads.
#include <atomic>
#include <cmath>
#include <cstring>

#include "binding.h"
#include "cpu_kernels.h"

namespace vllm_rast {
namespace {

// The best first. GCC's and clang's own look at cpuid also asks whether the system saves the wide registers.
#if defined(__x86_64__)
const bool kHasAvx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#endif
const CpuKernels kInstructionSets[] = {
#if defined(__x86_64__)
    {"amx", kHasAvx512 && amx::available(), avx512::combine_tiles, nullptr, nullptr, 0, avx512::draw_kernels,
     avx512::truncate_kernels},
    {"avx512bf16", kHasAvx512 && __builtin_cpu_supports("avx512bf16"), avx512::combine_tiles, avx512bf16::multiply,
     avx512bf16::lay_out_row, sizeof(uint16_t), avx512::draw_kernels, avx512::truncate_kernels},
    {"avx512", kHasAvx512, avx512::combine_tiles, avx512::multiply, avx512::lay_out_row, sizeof(float),
     avx512::draw_kernels, avx512::truncate_kernels},
    {"avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"), avx2::combine_tiles, avx2::multiply,
     avx2::lay_out_row, sizeof(float), avx2::draw_kernels, avx2::truncate_kernels},
#endif
    {"baseline", true, baseline::combine_tiles, baseline::multiply, baseline::lay_out_row, sizeof(float),
     baseline::draw_kernels, baseline::truncate_kernels},
};

const CpuKernels* find(const char* name) {
  for (const CpuKernels& set : kInstructionSets) {
    if (set.supported && (name == nullptr || std::strcmp(set.name, name) == 0)) return &set;
  }
  return nullptr;
}

std::atomic<const CpuKernels*> chosen{find(nullptr)};

}  // namespace

const CpuKernels& cpu_kernels() { return *chosen.load(); }

namespace {

// A thread is worth waking for about 25 microseconds of work, which is this many numbers read and written.
constexpr int64_t kNumbersPerThread = 262144;

void combine(const Combination& combination, TracePart* parts) {
  const int64_t tiles = combination.num_rows * tiles_per_row(combination.vocab);
  const int64_t numbers_per_tile = kTileColumns * (combination.num_models + 1);
  const int64_t grain = (kNumbersPerThread + numbers_per_tile - 1) / numbers_per_tile;
  const CombineTiles run = cpu_kernels().combine_tiles;
  torch::stable::parallel_for(0, tiles, grain,
                              [&](int64_t first, int64_t end) { run(combination, parts, first, end); });
}

void combine_logits(std::vector<Tensor> logits, Tensor weights, Tensor out) {
  std::vector<ModelLogits> models;
  combine(describe(logits, weights, out, models), nullptr);
}

// One row from its tiles' parts, always in the same order, in double.
void trace_row(const TracePart* parts, int64_t count, float* trace) {
  float base_max = -HUGE_VALF, mix_max = -HUGE_VALF;
  for (int64_t i = 0; i < count; ++i) {
    base_max = std::fmax(base_max, parts[i].base_max);
    mix_max = std::fmax(mix_max, parts[i].mix_max);
  }
  double base_sum = 0, mix_sum = 0, moved = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double share = rescale<double>(parts[i].mix_max, mix_max);
    base_sum += parts[i].base_sum * rescale<double>(parts[i].base_max, base_max);
    mix_sum += parts[i].mix_sum * share;
    moved += parts[i].moved * share;
  }
  write_trace(base_max, base_sum, mix_max, mix_sum, moved, trace);
}

void combine_logits_traced(std::vector<Tensor> logits, Tensor weights, Tensor out, Tensor trace) {
  std::vector<ModelLogits> models;
  const Combination combination = describe(logits, weights, out, models);
  STD_TORCH_CHECK(!models.empty(), "logits: a trace needs a base");
  float* const rows = check_trace(trace, out);
  const int64_t tiles = tiles_per_row(combination.vocab);
  std::vector<TracePart> parts(combination.num_rows * tiles);
  combine(combination, parts.data());
  for (int64_t n = 0; n < combination.num_rows; ++n) {
    trace_row(parts.data() + n * tiles, tiles, rows + n * kTraceColumns);
  }
}

}  // namespace
}  // namespace vllm_rast

// The name of the instruction set in use. Another one that this processor has may be named, for tests.
extern "C" __attribute__((visibility("default"))) const char* vllm_rast_cpu_isa(const char* wanted) {
  if (const auto* set = vllm_rast::find(wanted); wanted != nullptr && set != nullptr) vllm_rast::chosen = set;
  return vllm_rast::cpu_kernels().name;
}

STABLE_TORCH_LIBRARY_IMPL(vllm_rast, CPU, library) {
  library.impl("combine_logits", TORCH_BOX(&vllm_rast::combine_logits));
  library.impl("combine_logits_traced", TORCH_BOX(&vllm_rast::combine_logits_traced));
}
