// Random numbers that follow from a request's seed and a token's position alone: SplitMix64, a hash of a counter
// (Steele, Lea and Flood, 2014). The same numbers as those of vllm_rast/engine/noise.py, and over a vocabulary those of
// vLLM's sampler for CPUs: the n-th number of a seed is mixed(mixed(seed) + n * kGamma), n from 1.
#pragma once

#include <cmath>
#include <cstdint>

namespace vllm_rast {

constexpr uint64_t kGamma = 0x9E3779B97F4A7C15;

constexpr uint64_t mixed(uint64_t number) {
  number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9;
  number = (number ^ (number >> 27)) * 0x94D049BB133111EB;
  return number ^ (number >> 31);
}

// What a number is for: each position of a request has one of each.
enum class Purpose : uint64_t { draft, accept, residual };
constexpr uint64_t kPurposes = 3;

constexpr uint64_t hash_of(uint64_t seed, uint64_t position, Purpose purpose) {
  return mixed(mixed(seed) + (position * kPurposes + static_cast<uint64_t>(purpose) + 1) * kGamma);
}

// A seed for noise over the whole vocabulary, without its sign.
constexpr uint64_t row_seed(uint64_t seed, uint64_t position, Purpose purpose) {
  return hash_of(seed, position, purpose) >> 1;
}

// From 0 to below 1, with 53 random bits.
inline double uniform(uint64_t bits) { return static_cast<double>(bits >> 11) * 0x1p-53; }

// Gumbel noise, -log(-log(u)) with u in the middle of one of 2^53 parts: from -3.63 to 37.5.
inline double gumbel(uint64_t bits) { return -std::log(-std::log((static_cast<double>(bits >> 11) + 0.5) * 0x1p-53)); }

}  // namespace vllm_rast
