// torch.ops.vllm_rast.draw and draw_coupled on the CPU: tiles on torch's own threads, then each line from its tiles.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "binding.h"
#include "draw.h"
#include "noise.h"

extern "C" const char* vllm_rast_cpu_isa(const char* wanted);

namespace vllm_rast {
namespace {

const DrawKernels& pick_kernels() {
#if defined(__x86_64__)
  const char* name = vllm_rast_cpu_isa(nullptr);
  if (std::strcmp(name, "avx2") == 0) return avx2::draw_kernels;
  if (std::strcmp(name, "baseline") != 0) return avx512::draw_kernels;
#endif
  return baseline::draw_kernels;
}

constexpr int64_t kTilesPerThread = 12;  // of 2 microseconds each

// What a tile leaves; `best` is the line's so far, as far as the thread that ran the tile knows.
struct TileResult {
  Mass p, q;
  Best best;
};

// Runs `work(line, tile, best)` for every tile, in order within a thread, which knows what won in the line before.
template <typename Work>
void for_tiles(int64_t num_lines, int64_t tiles, const Work& work) {
  torch::stable::parallel_for(0, num_lines * tiles, kTilesPerThread, [&](int64_t first, int64_t end) {
    Best best;
    for (int64_t i = first; i < end; ++i) {
      if (i % tiles == 0) best = {};
      work(i / tiles, i % tiles, best);
    }
  });
}

Best best_of(const std::vector<TileResult>& results, int64_t line, int64_t tiles) {
  Best best;
  for (int64_t i = line * tiles; i < (line + 1) * tiles; ++i) {
    const Best& other = results[i].best;
    if (other.id >= 0 && best.loses_to(other.logit, other.noise)) best = other;
  }
  return best;
}

// The whole line's largest logit and sum, always added in the same order, in double.
struct LineMass {
  float max;
  double sum;

  double log_sum_exp() const { return max + std::log(sum); }
  Softmax softmax() const { return {max, static_cast<float>(1 / sum)}; }
};

LineMass mass_of(const std::vector<TileResult>& results, int64_t line, int64_t tiles, Mass TileResult::* model) {
  LineMass whole{-HUGE_VALF, 0};
  for (int64_t i = line * tiles; i < (line + 1) * tiles; ++i) whole.max = std::fmax(whole.max, (results[i].*model).max);
  for (int64_t i = line * tiles; i < (line + 1) * tiles; ++i) {
    const Mass part = results[i].*model;
    whole.sum += part.sum * rescale<double>(part.max, whole.max);
  }
  return whole;
}

int64_t count_of(const Tensor& seeds) {
  STD_TORCH_CHECK(seeds.dim() == 1, "seeds: must be one for each line");
  return seeds.size(0);
}

const int64_t* check_numbers(const Tensor& numbers, const char* name, int64_t count) {
  STD_TORCH_CHECK(numbers.dim() == 1 && numbers.size(0) == count && numbers.scalar_type() == ScalarType::Long &&
                      numbers.is_contiguous(),
                  name, ": must be int64 [", count, "], dense");
  return static_cast<const int64_t*>(numbers.data_ptr());
}

Lines describe_lines(const Tensor& logits, const char* name, int64_t count, const Tensor* rows = nullptr,
                     const Tensor* temperatures = nullptr) {
  STD_TORCH_CHECK(logits.dim() == 2 && logits.scalar_type() == ScalarType::Float, name, ": must be a float32 matrix");
  check_matrix(logits, name, rows == nullptr ? count : logits.size(0));
  Lines lines{static_cast<const float*>(logits.data_ptr()), logits.stride(0), logits.size(1), nullptr, nullptr};
  if (rows != nullptr) {
    lines.rows = check_numbers(*rows, "rows", count);
    for (int64_t i = 0; i < count; ++i) {
      STD_TORCH_CHECK(lines.rows[i] >= 0 && lines.rows[i] < logits.size(0), "rows: no row ", lines.rows[i], " in ",
                      name);
    }
  }
  if (temperatures != nullptr) {
    STD_TORCH_CHECK(temperatures->dim() == 1 && temperatures->size(0) == count &&
                        temperatures->scalar_type() == ScalarType::Float && temperatures->is_contiguous(),
                    "temperatures: must be float32 [", count, "], dense");
    lines.temperatures = static_cast<const float*>(temperatures->data_ptr());
  }
  return lines;
}

Tensor draw(Tensor logits, Tensor temperatures, Tensor seeds) {
  const int64_t count = count_of(seeds);
  const Lines lines = describe_lines(logits, "logits", count, nullptr, &temperatures);
  const int64_t* of_lines = check_numbers(seeds, "seeds", count);
  const Tensor out = torch::stable::new_empty(seeds, {count});
  auto* const ids = static_cast<int64_t*>(out.data_ptr());
  const int64_t tiles = tiles_per_row(lines.width);
  std::vector<TileResult> results(count * tiles);
  const DrawKernels& kernels = pick_kernels();
  for_tiles(count, tiles, [&](int64_t line, int64_t tile, Best& best) {
    kernels.draw(lines, line, tile, mixed(of_lines[line]), best);
    results[line * tiles + tile].best = best;
  });
  for (int64_t line = 0; line < count; ++line) ids[line] = std::max<int64_t>(best_of(results, line, tiles).id, 0);
  return out;
}

// The mix's lines and the drafter's, which are to give the same id as often as can be.
struct Coupled {
  Lines p, q;
  const int64_t *seeds, *positions;
  int64_t count, tiles;

  uint64_t key(int64_t line, Purpose purpose) const { return mixed(row_seed(seeds[line], positions[line], purpose)); }
};

// A line whose draft was refused.
struct Refused {
  int64_t line;
  Softmax of_p, of_q;
};

void draw_drafts(const Coupled& all, const DrawKernels& kernels, std::vector<TileResult>& results) {
  for_tiles(all.count, all.tiles, [&](int64_t line, int64_t tile, Best& best) {
    TileResult& result = results[line * all.tiles + tile];
    result.p = kernels.mass(all.p, line, tile);
    result.q = kernels.draw(all.q, line, tile, all.key(line, Purpose::draft), best);
    result.best = best;
  });
}

// Keeps each draft with probability min(1, p / q); the lines whose draft is not kept.
std::vector<Refused> refuse(const Coupled& all, const std::vector<TileResult>& results, int64_t* ids) {
  std::vector<Refused> refused;
  for (int64_t line = 0; line < all.count; ++line) {
    const Best draft = best_of(results, line, all.tiles);
    const LineMass of_p = mass_of(results, line, all.tiles, &TileResult::p);
    const LineMass of_q = mass_of(results, line, all.tiles, &TileResult::q);
    ids[line] = std::max<int64_t>(draft.id, 0);
    const double log_p = all.p.data[line * all.p.row_stride + ids[line]] - of_p.log_sum_exp();
    const double ratio = std::exp(log_p - (draft.logit - of_q.log_sum_exp()));
    const double u = uniform(hash_of(all.seeds[line], all.positions[line], Purpose::accept));
    if (draft.id < 0 || !(u < ratio)) refused.push_back({line, of_p.softmax(), of_q.softmax()});
  }
  return refused;
}

void draw_again(const Coupled& all, const DrawKernels& kernels, const std::vector<Refused>& refused,
                std::vector<TileResult>& results, int64_t* ids) {
  const auto count = static_cast<int64_t>(refused.size());
  for_tiles(count, all.tiles, [&](int64_t place, int64_t tile, Best& best) {
    const auto& [line, of_p, of_q] = refused[place];
    kernels.draw_rest(all.p, all.q, of_p, of_q, line, tile, all.key(line, Purpose::residual), best);
    results[place * all.tiles + tile].best = best;
  });
  for (int64_t place = 0; place < count; ++place) {
    const int64_t line = refused[place].line;
    Best best = best_of(results, place, all.tiles);
    // Nothing is left only where both agree to the last bit and the sums' rounding refused the draft.
    const bool nothing = best.id < 0;
    for (int64_t tile = 0; nothing && tile < all.tiles; ++tile) {
      kernels.draw(all.p, line, tile, all.key(line, Purpose::residual), best);
    }
    ids[line] = std::max<int64_t>(best.id, 0);
  }
}

Tensor draw_coupled(Tensor p, Tensor q, Tensor rows, Tensor temperatures, Tensor seeds, Tensor positions) {
  const int64_t count = count_of(seeds);
  const Lines of_p = describe_lines(p, "p", count), of_q = describe_lines(q, "q", count, &rows, &temperatures);
  STD_TORCH_CHECK(of_q.width <= of_p.width, "q: has more columns than p");
  const int64_t *of_lines = check_numbers(seeds, "seeds", count), *at = check_numbers(positions, "positions", count);
  const Coupled all{of_p, of_q, of_lines, at, count, tiles_per_row(of_p.width)};
  const Tensor out = torch::stable::new_empty(seeds, {count});
  auto* const ids = static_cast<int64_t*>(out.data_ptr());
  std::vector<TileResult> results(count * all.tiles);
  const DrawKernels& kernels = pick_kernels();
  draw_drafts(all, kernels, results);
  draw_again(all, kernels, refuse(all, results, ids), results, ids);
  return out;
}

}  // namespace
}  // namespace vllm_rast

STABLE_TORCH_LIBRARY_IMPL(vllm_rast, CPU, library) {
  library.impl("draw", TORCH_BOX(&vllm_rast::draw));
  library.impl("draw_coupled", TORCH_BOX(&vllm_rast::draw_coupled));
}
