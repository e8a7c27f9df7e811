"""`vllm-rast serve`: vLLM's own OpenAI server on a mix of models.

What is used of vLLM 0.32 and 0.33, and where:

- `server`: `entrypoints.launchers.api_server.entry.run_server`, vLLM's whole server with its command-line arguments;
  the name `serve_http` in that module is replaced while it runs, because the finished app passes by there.
- `aliases`: `OpenAIServingModels.base_model_paths` (the names that are served) and `model_name` (the name in answers).
- `limits`, `requests`, `stream_errors`, `drain`: pure ASGI middleware behind vLLM's own, so that streams are never
  buffered.
- `drain`: `AsyncLLM.shutdown`, `errored`. `health`, `requests`, `traces`: `AsyncLLM.generate`.
- `traces`: `AsyncLLM.collective_rpc`, `input_processor`, `renderer.tokenizer`; `traced_answer` reads the JSON of
  answers, and the texts of ids by `convert_ids_list_to_tokens`, as vLLM's own log-probabilities do.
- `error_responses`: `create_error_response`, the shape of vLLM's error answers, and its handlers of exceptions.
- `metrics`: `AsyncLLM.output_processor` and `collective_rpc`. `ui` only adds routes.
"""
