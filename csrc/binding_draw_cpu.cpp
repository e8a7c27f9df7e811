// torch.ops.vllm_rast.draw and draw_coupled on the CPU.
#include <algorithm>
#include <optional>

#include "binding_lines.h"
#include "cpu_kernels.h"
#include "noise.h"

namespace vllm_rast {
namespace {

// Runs `work(line, tile, best)` for every tile, with what won in the line's tiles before, as far as the thread knows;
// [num_lines * tiles] of what has won after each.
template <typename Work>
std::vector<Best> find_bests(int64_t num_lines, int64_t tiles, const Work& work) {
  std::vector<Best> bests(num_lines * tiles);
  torch::stable::parallel_for(0, num_lines * tiles, kTilesPerThread, [&](int64_t first, int64_t end) {
    for (int64_t i = first; i < end; ++i) {
      if (i > first && i % tiles != 0) bests[i] = bests[i - 1];
      work(i / tiles, i % tiles, bests[i]);
    }
  });
  return bests;
}

Best best_of(const std::vector<Best>& bests, int64_t line, int64_t tiles) {
  Best best;
  for (int64_t i = line * tiles; i < (line + 1) * tiles; ++i) {
    if (bests[i].id >= 0 && best.loses_to(bests[i].logit, bests[i].noise)) best = bests[i];
  }
  return best;
}

// The first id if there is none at all, as in a line of -inf.
int64_t id_of(const Best& best) { return std::max<int64_t>(best.id, 0); }

Tensor draw(Tensor logits, std::optional<Tensor> temperatures, Tensor seeds) {
  Lines lines = check_lines(logits, "logits");
  const int64_t count = logits.size(0), tiles = tiles_per_row(lines.width);
  if (temperatures.has_value()) lines.temperatures = check_floats(*temperatures, "temperatures", count);
  const int64_t* of_lines = check_integers(seeds, "seeds", count);
  const DrawKernels& kernels = cpu_kernels().draw;
  const std::vector<Best> bests = find_bests(count, tiles, [&](int64_t line, int64_t tile, Best& best) {
    kernels.draw(lines, line, tile, mixed(of_lines[line]), best);
  });
  const Tensor out = torch::stable::new_empty(seeds, {count});
  auto* const ids = static_cast<int64_t*>(out.data_ptr());
  for (int64_t line = 0; line < count; ++line) ids[line] = id_of(best_of(bests, line, tiles));
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

Softmax softmax_of(const LineMass& mass) { return {mass.max, static_cast<float>(1 / mass.sum)}; }

// Draws from q and keeps each draft with probability min(1, p / q); the lines whose draft is not kept.
std::vector<Refused> draft(const Coupled& all, const DrawKernels& kernels, int64_t* ids) {
  std::vector<Mass> of_p(all.count * all.tiles), of_q(all.count * all.tiles);
  const std::vector<Best> bests = find_bests(all.count, all.tiles, [&](int64_t line, int64_t tile, Best& best) {
    of_p[line * all.tiles + tile] = kernels.mass(all.p, line, tile);
    of_q[line * all.tiles + tile] = kernels.draw(all.q, line, tile, all.key(line, Purpose::draft), best);
  });
  std::vector<Refused> refused;
  for (int64_t line = 0; line < all.count; ++line) {
    const Best best = best_of(bests, line, all.tiles);
    const LineMass p = add_up(&of_p[line * all.tiles], all.tiles), q = add_up(&of_q[line * all.tiles], all.tiles);
    ids[line] = id_of(best);
    const double log_p = all.p.data[line * all.p.row_stride + ids[line]] - p.log_sum_exp();
    const double ratio = std::exp(log_p - (best.logit - q.log_sum_exp()));
    const double u = uniform(hash_of(all.seeds[line], all.positions[line], Purpose::accept));
    if (best.id < 0 || !(u < ratio)) refused.push_back({line, softmax_of(p), softmax_of(q)});
  }
  return refused;
}

// Draws refused lines from what p has more than q.
void draw_again(const Coupled& all, const DrawKernels& kernels, const std::vector<Refused>& refused, int64_t* ids) {
  const auto count = static_cast<int64_t>(refused.size());
  const std::vector<Best> bests = find_bests(count, all.tiles, [&](int64_t place, int64_t tile, Best& best) {
    const auto& [line, of_p, of_q] = refused[place];
    kernels.draw_rest(all.p, all.q, of_p, of_q, line, tile, all.key(line, Purpose::residual), best);
  });
  for (int64_t place = 0; place < count; ++place) {
    const int64_t line = refused[place].line;
    Best best = best_of(bests, place, all.tiles);
    // Nothing is left only where both agree to the last bit and the sums' rounding refused the draft.
    const bool nothing = best.id < 0;
    for (int64_t tile = 0; nothing && tile < all.tiles; ++tile) {
      kernels.draw(all.p, line, tile, all.key(line, Purpose::residual), best);
    }
    ids[line] = id_of(best);
  }
}

Tensor draw_coupled(Tensor p, Tensor q, std::optional<Tensor> rows, std::optional<Tensor> temperatures, Tensor seeds,
                    Tensor positions) {
  Coupled all{check_lines(p, "p"), check_lines(q, "q")};
  all.count = p.size(0), all.tiles = tiles_per_row(all.p.width);
  STD_TORCH_CHECK(all.q.width <= all.p.width, "q: has more columns than p");
  if (rows.has_value()) {
    all.q.rows = check_integers(*rows, "rows", all.count);
    const int64_t wrong =
        std::count_if(all.q.rows, all.q.rows + all.count, [&](int64_t row) { return row < 0 || row >= q.size(0); });
    STD_TORCH_CHECK(wrong == 0, "rows: q has no such row");
  } else {
    STD_TORCH_CHECK(q.size(0) == all.count, "q: must have as many rows as p");
  }
  if (temperatures.has_value()) all.q.temperatures = check_floats(*temperatures, "temperatures", all.count);
  all.seeds = check_integers(seeds, "seeds", all.count);
  all.positions = check_integers(positions, "positions", all.count);
  const Tensor out = torch::stable::new_empty(seeds, {all.count});
  auto* const ids = static_cast<int64_t*>(out.data_ptr());
  const DrawKernels& kernels = cpu_kernels().draw;
  draw_again(all, kernels, draft(all, kernels, ids), ids);
  return out;
}

}  // namespace
}  // namespace vllm_rast

STABLE_TORCH_LIBRARY_IMPL(vllm_rast, CPU, library) {
  library.impl("draw", TORCH_BOX(&vllm_rast::draw));
  library.impl("draw_coupled", TORCH_BOX(&vllm_rast::draw_coupled));
}
