// Top-k and top-p on a CPU, a tile at a time. Compiled once for each instruction set, with ISA naming the namespace.
#include "lanes.h"
#include "truncate.h"

namespace vllm_rast::ISA {
namespace {

constexpr int kBlock = 64;
static_assert(kPeaks == kLanes);

void peaks(const Lines& lines, int64_t line, int64_t tile, float* to) {
  alignas(64) Tile x;
  load(lines, line, tile, x);
  find_peaks(x, to);
}

int64_t collect(const Lines& lines, int64_t line, int64_t tile, float bound, float* to) {
  alignas(64) Tile x;
  load(lines, line, tile, x);
  int64_t count = 0;
  for (int64_t start = 0; start < kTileColumns; start += kBlock) {
    int any = 0;
    for (int i = 0; i < kBlock; ++i) any |= x[start + i] >= bound;
    for (int i = 0; any && i < kBlock; ++i) {
      to[count] = x[start + i];
      count += x[start + i] >= bound;
    }
  }
  return count;
}

float sum(const float* logits, int64_t count, float max) {
  alignas(64) float sums[kLanes] = {};
  const int64_t whole = count / kLanes * kLanes;
  for (int64_t v = 0; v < whole; v += kLanes) {
    for (int i = 0; i < kLanes; ++i) sums[i] += exponential(logits[v + i] - max);
  }
  for (int64_t v = whole; v < count; ++v) sums[v - whole] += exponential(logits[v] - max);
  return fold(sums);
}

void cut(const Lines& lines, int64_t line, int64_t tile, float threshold) {
  const int64_t column = tile * kTileColumns, left = lines.width - column;
  const int64_t columns = left < kTileColumns ? left : kTileColumns;
  float* x = const_cast<float*>(lines.data) + line * lines.row_stride + column;
  for (int64_t v = 0; v < columns; ++v) x[v] = x[v] < threshold ? -__builtin_inff() : x[v];
}

}  // namespace

extern const TruncateKernels truncate_kernels;
const TruncateKernels truncate_kernels = {mass, peaks, collect, sum, cut};

}  // namespace vllm_rast::ISA
