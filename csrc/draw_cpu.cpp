// Sampling on a CPU, a tile at a time. Compiled once for each instruction set, with ISA naming the namespace.
//
// Noise costs two logarithms, but few ids can win: one whose logit is x beats a sum of `best` only if its noise is
// above best - x, so if its uniform number u has -log u <= exp(x - best), which asks for 1 - u <= exp(x - best) at
// least. With exp(x - max), which the softmax needs anyway, that is a product and a comparison for each id, and some 20
// of a row remain for which logit and noise are added exactly, in double. So the result is that of looking at all of
// them.
#include "draw.h"
#include "lanes.h"
#include "noise.h"

namespace vllm_rast::ISA {
namespace {

constexpr int kBlock = 64;                // ids whose noise is looked at together
constexpr double kLeastNoise = 1 / 37.5;  // of any id, as exp(noise)
constexpr float kUnit = 0x1p31f;          // 1 - u is looked at with so many steps
constexpr float kMargin = 1.0001f;        // exp(x - max) is off by 1e-5 if x is far from max
constexpr float kHopeless = 0x1p-24f;  // below it, times kUnit, not even the largest noise wins: 1 - u is 2^-54 or more

// Steps of 1 - u, rounded down.
inline float steps_left(uint64_t bits) { return static_cast<float>(static_cast<int32_t>(~bits >> 33)); }

// Whether an id of the block may win. first: what is mixed for its first id. A share of nan may.
bool any_may_win(const float* shares, uint64_t first, float threshold) {
  int hopeful = 0;
  for (int i = 0; i < kBlock; ++i) hopeful |= !(shares[i] * threshold < kHopeless);
  if (!hopeful) return false;
  int found = 0;
  for (int i = 0; i < kBlock; ++i) {
    found |= !(steps_left(mixed(first + i * kGamma)) > shares[i] * threshold);
  }
  return found;
}

// Looks for an id of a tile that beats `best`. shares: proportional to the probabilities, the largest of them `top`.
// logit_of(v): column v's logit in double; log_unit: that of a share of 1.
template <typename LogitOf>
void draw_from(const float* shares, float top, double log_unit, int64_t tile, uint64_t key, const LogitOf& logit_of,
               Best& best) {
  const auto find_threshold = [&] {
    // Nothing wins with a sum below the best one, or below what the largest share comes to with the least noise.
    const double reached = best.id < 0 ? 0 : std::exp(best.logit + best.noise - log_unit), least = top * kLeastNoise;
    return static_cast<float>(kUnit * kMargin / (reached > least ? reached : least));
  };
  float threshold = find_threshold();
  const int64_t column = tile * kTileColumns;
  for (int64_t start = 0; start < kTileColumns; start += kBlock) {
    const uint64_t first = key + (column + start + 1) * kGamma;
    if (!any_may_win(shares + start, first, threshold)) continue;
    for (int i = 0; i < kBlock; ++i) {
      const uint64_t bits = mixed(first + i * kGamma);
      if (steps_left(bits) > shares[start + i] * threshold) continue;
      const double logit = logit_of(start + i), noise = gumbel(bits);
      if (logit > -HUGE_VAL && best.loses_to(logit, noise)) best = {logit, noise, column + start + i};
    }
    threshold = find_threshold();
  }
}

Mass draw(const Lines& lines, int64_t line, int64_t tile, uint64_t key, Best& best) {
  alignas(64) Tile x, shares;
  load(lines, line, tile, x);
  const float max = largest(x), sum = find_shares(x, max, shares);
  if (max > -__builtin_inff()) {
    draw_from(shares, 1, max, tile, key, [&](int64_t v) { return static_cast<double>(x[v]); }, best);
  }
  return {max, sum};
}

void draw_rest(const Lines& p, const Lines& q, Softmax of_p, Softmax of_q, int64_t line, int64_t tile, uint64_t key,
               Best& best) {
  alignas(64) Tile more, of_drafter;
  load(p, line, tile, more);
  load(q, line, tile, of_drafter);
  for (int64_t v = 0; v < kTileColumns; ++v) {
    const float rest =
        exponential(more[v] - of_p.max) * of_p.scale - exponential(of_drafter[v] - of_q.max) * of_q.scale;
    more[v] = keep_if(rest > 0, rest);
  }
  if (const float top = largest(more); top > 0) {
    draw_from(more, top, 0, tile, key, [&](int64_t v) { return std::log(static_cast<double>(more[v])); }, best);
  }
}

}  // namespace

extern const DrawKernels draw_kernels;
const DrawKernels draw_kernels = {mass, draw, draw_rest};

}  // namespace vllm_rast::ISA
