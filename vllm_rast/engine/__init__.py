"""Everything that touches vLLM's internals, written against vLLM 0.32 and 0.33.

What is used, and where (`tests/engine/test_vllm_contract.py` checks every name):

- `loader`: `register_model_loader("rast")` (public). It loads the base with the loader that the user wanted, then
  every small model beside it under a prefix of its own, so that vLLM's KV cache manager sees the attention layers of
  all models in one block table.
- `adapters`: a `DefaultModelLoader` whose `get_all_weights` merges a PEFT adapter into what it reads;
  `stored` reads the headers of checkpoints.
- `sharing`, `shared_model`, `adapted_linear`: models of the same weights as one forward. `LinearBase.quant_method` is
  replaced by one that adds the adapters (their parts are cut by the layers' own `weight_loader_v2`), every `Attention`
  by one that has a copy for each model in `static_forward_context`.
- `ensemble`: the model that vLLM sees. `embed_input_ids`, `forward`, `compute_logits`, `get_model_state_cls` are the
  model interface of vLLM; `LogitsProcessor.head_dtype` and `ParallelLMHead` give float32 heads.
- `v1_runner`: overrides `GPUModelRunner._prepare_inputs` of the V1 runner (the CPU's, and CUDA's with
  VLLM_USE_V2_MODEL_RUNNER=0) to write each scheduled token's weights. Reads `input_batch.req_ids`, `requests` and
  their `num_prompt_tokens`, `req_indices`, `positions`; `_update_streaming_request` says that a session goes on.
  On a CPU also `_sample` and `_bookkeeping_sync`, to keep seeded requests alive under chunked prefill.
- `speculation`: what vLLM's configuration is told of the mix's own drafts (`SpeculativeConfig`: the n-gram method for
  GPUs while it is completed, then a draft model's), and what they do not go with.
- `v1_speculation`: the V1 runner with drafts. Overrides `_prepare_inputs`, `_sample`, `_input_fits_in_drafter` and
  `propose_draft_token_ids`; replaces its sampler's `topk_topp_sampler` and its `rejection_sampler`.
- `shared_drafter`: stands for vLLM's `DraftModelProposer`; builds `CommonAttentionMetadata` and `AttentionGroup`'s
  metadata for the drafter's layers and runs it in a forward context of its own.
- `verifier`, `coupling`, `noise`: the token at each drafted position from the mix, the drafter, the seed and the
  position (`RejectionSampler`; `fused_gumbel_argmax` or our kernel, or with Triton `gumbel_sample`).
- `row_processors`: `min_p` and `logit_bias` at drafted positions of V1, in the place of `build_logitsprocs` and beside
  `RejectionSampler.apply_logits_processors` and `apply_sampling_constraints`; V2 has them for every row.
- `v2_drafter`: the V2 runner's speculator (`DraftModelSpeculator.propose` and what it asks for beside), in the place of
  `init_speculator` while the runner is made; `SpeculatorCudaGraphManager` captures a draft.
- `v2_verifier`: the V2 runner's `RejectionSampler._verify` and `Sampler.sample`, through `ModelState.custom_sampler`.
- `draft_pace`: how many drafts a step makes; with "auto" by the steps' times, which the first rank broadcasts to the
  others (`GroupCoordinator.broadcast`).
- `cpu_sampling`: vLLM's sampling on a CPU by our kernels, in place of `fused_gumbel_argmax` and of
  `apply_top_k_top_p_pytorch`.
- `cpu_rejection`: two mended functions of vLLM's `rejection_sampler`, for every drafter on a CPU.
- `v2_state`: a `ModelState` of the V2 runner (CUDA's default) that does the same through `add_request`,
  `prepare_inputs`, `remove_request`. Reads `NewRequestData.prompt_len` and `prompt_token_ids`, and the batch's
  `positions`.
- `v2_runner`: overrides `GPUModelRunner.sample` of the V2 runner for token traces. Reads the batch's `logits_indices`,
  `cu_num_logits_np`, `num_computed_prefill_tokens_np`, `query_start_loc_np`, and `SamplerOutput.sampled_token_ids`.
- `token_rows`: what both do with them; touches torch alone.
- `worker`: `worker_cls`; the GPU worker's `_make_model_runner` and the CPU worker's `CPUModelRunner` name; after
  `compile_or_warm_up_model` the sums of `divergence` begin, which `collective_rpc("rast_trace")` reads.
- `divergence`: gathers what each rank has of it with `tensor_model_parallel_all_gather`.
- `token_traces`: reads a step's rows where V1 computes prompt logprobs, `GPUModelRunner._get_prompt_logprobs_dict`, by
  `query_start_loc`, `input_batch.req_id_to_index` and each request's `num_computed_tokens` and `prompt_token_ids`;
  `SamplingParams.skip_reading_prefix_cache` keeps the cache from hiding rows. `collective_rpc("rast_token_traces")`
  takes what is finished.
- `decode_traces`: in V1 what `_bookkeeping_sync` is given, `SamplerOutput.sampled_token_ids`. `taken_traces`: an
  attribute of the front end's `InputProcessor` says that `collective_rpc("rast_decode_traces")` will be asked.
- `patches`: three functions of vLLM are wrapped, because no public hook exists: `EngineArgs.create_engine_config`
  (checks before anything loads), `InputProcessor.process_inputs` (checks of a request in the front end) and
  `SamplingParams._validate_spec_decode`, which does not know that the mix's drafts go with all parameters.
- `serialization`: `MsgpackEncoder`, which writes every request for the engine's process.
- `checks`, `members`, `memory`: read `ModelConfig` and `VllmConfig`.
- `compiling`: nothing is compiled where torch cannot (`CompilationConfig.mode`).
- `plugin`: `register()`, the `vllm.general_plugins` entry point, which vLLM runs in every process.
"""
