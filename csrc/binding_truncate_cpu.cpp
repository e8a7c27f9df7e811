// torch.ops.vllm_rast.truncate on the CPU: top-k, then top-p, by the least logit that stays.
//
// Sorting 152,000 logits takes 11 ms. But all that matters lies at the top, and a bound that no logit to be kept is
// below costs one look at each: for top-k the k-th largest of the peaks, which are logits too; for top-p, an id whose
// probability is below (1 - p) / vocab is one of the least likely, which together have less than 1 - p. The few hundred
// logits above it are searched for the exact one.
#include <algorithm>
#include <functional>
#include <optional>

#include "binding_lines.h"
#include "cpu_kernels.h"

namespace vllm_rast {
namespace {

constexpr int64_t kFew = 64;       // logits that are sorted rather than halved
constexpr double kMargin = 0.999;  // of a bound's probability: sums of float32 are off by 1e-5 at most

// A line that keeps its k largest logits (all if k is its width) and of these those of the probability p (1: all).
struct Wish {
  int64_t line, k;
  double p;
};

// One line's tiles, as they are found side by side.
struct Found {
  std::vector<Mass> masses;
  std::vector<float> peaks;
  std::vector<std::vector<float>> logits;  // of each tile, those that may be kept

  explicit Found(int64_t tiles) : masses(tiles), peaks(tiles * kPeaks), logits(tiles) {}
};

float find_bound(const Wish& wish, const LineMass& mass, Found& found, int64_t width) {
  if (wish.k < width) {
    if (wish.k > static_cast<int64_t>(found.peaks.size())) return -HUGE_VALF;
    const auto kth = found.peaks.begin() + (wish.k - 1);
    std::nth_element(found.peaks.begin(), kth, found.peaks.end(), std::greater<>());
    return *kth;
  }
  return mass.max + static_cast<float>(std::log(kMargin * (1 - wish.p) * mass.sum / static_cast<double>(width)));
}

// The least logit that stays: those above it have less than `wanted`, and with it not. An id stays if those that are
// likelier have less than `wanted`. Halves what is left of the logits, and looks on in the half where the sum is
// reached.
float reach(std::vector<float>& logits, float max, double wanted, const TruncateKernels& kernels) {
  auto first = logits.begin(), end = logits.end();
  double above = 0;
  while (end - first > kFew) {
    const auto middle = first + (end - first) / 2;
    std::nth_element(first, middle, end, std::greater<>());
    const double half = kernels.sum(&*first, middle - first, max);
    if (above + half < wanted) {
      above += half;
      first = middle;
    } else {
      end = middle;
    }
  }
  std::sort(first, end, std::greater<>());
  float least = *first;
  for (; first != end && above < wanted; ++first) {
    least = *first;
    above += std::exp(static_cast<double>(*first) - max);
  }
  return least;
}

// The least logit that stays; -inf if all do.
float find_threshold(const Wish& wish, LineMass mass, std::vector<float> logits, int64_t width,
                     const TruncateKernels& kernels) {
  if (logits.empty()) return -HUGE_VALF;  // no softmax: nan or +inf
  float threshold = -HUGE_VALF;
  if (wish.k < width) {
    if (wish.k >= static_cast<int64_t>(logits.size())) {
      threshold = *std::min_element(logits.begin(), logits.end());
    } else {
      std::nth_element(logits.begin(), logits.begin() + (wish.k - 1), logits.end(), std::greater<>());
      threshold = logits[wish.k - 1];
      logits.erase(std::remove_if(logits.begin(), logits.end(), [&](float x) { return x < threshold; }), logits.end());
    }
    mass.max = *std::max_element(logits.begin(), logits.end());
    mass.sum = kernels.sum(logits.data(), static_cast<int64_t>(logits.size()), mass.max);
  }
  return wish.p < 1 ? reach(logits, mass.max, wish.p * mass.sum, kernels) : threshold;
}

std::vector<Wish> read_wishes(const std::optional<Tensor>& k, const std::optional<Tensor>& p, int64_t count,
                              int64_t width) {
  const int64_t* ks = k.has_value() ? check_integers(*k, "k", count) : nullptr;
  const float* ps = p.has_value() ? check_floats(*p, "p", count) : nullptr;
  std::vector<Wish> wishes;
  for (int64_t line = 0; line < count; ++line) {
    const Wish wish{line, ks == nullptr ? width : std::min(ks[line], width), ps == nullptr ? 1 : ps[line]};
    STD_TORCH_CHECK(wish.k > 0, "k: must be positive");
    if (wish.k < width || wish.p < 1) wishes.push_back(wish);
  }
  return wishes;
}

void truncate(Tensor logits, std::optional<Tensor> k, std::optional<Tensor> p) {
  const Lines lines = check_lines(logits, "logits");
  const int64_t tiles = tiles_per_row(lines.width);
  const std::vector<Wish> wishes = read_wishes(k, p, logits.size(0), lines.width);
  const auto count = static_cast<int64_t>(wishes.size());
  const TruncateKernels& kernels = cpu_kernels().truncate;
  std::vector<Found> found(count, Found(tiles));
  for_tiles(count, tiles, [&](int64_t i, int64_t tile) {
    if (wishes[i].k < lines.width) {
      kernels.peaks(lines, wishes[i].line, tile, &found[i].peaks[tile * kPeaks]);
    } else {
      found[i].masses[tile] = kernels.mass(lines, wishes[i].line, tile);
    }
  });
  std::vector<LineMass> masses(count);
  std::vector<float> bounds(count), thresholds(count);
  for (int64_t i = 0; i < count; ++i) {
    masses[i] = add_up(found[i].masses.data(), tiles);
    bounds[i] = find_bound(wishes[i], masses[i], found[i], lines.width);
  }
  for_tiles(count, tiles, [&](int64_t i, int64_t tile) {
    float kept[kTileColumns + 1];  // what is not kept is written behind, too
    const int64_t number = kernels.collect(lines, wishes[i].line, tile, bounds[i], kept);
    found[i].logits[tile].assign(kept, kept + number);
  });
  torch::stable::parallel_for(0, count, 1, [&](int64_t first, int64_t end) {
    for (int64_t i = first; i < end; ++i) {
      std::vector<float> all;
      for (const std::vector<float>& some : found[i].logits) all.insert(all.end(), some.begin(), some.end());
      thresholds[i] = find_threshold(wishes[i], masses[i], std::move(all), lines.width, kernels);
    }
  });
  for_tiles(count, tiles, [&](int64_t i, int64_t tile) { kernels.cut(lines, wishes[i].line, tile, thresholds[i]); });
}

}  // namespace
}  // namespace vllm_rast

STABLE_TORCH_LIBRARY_IMPL(vllm_rast, CPU, library) { library.impl("truncate", TORCH_BOX(&vllm_rast::truncate)); }
