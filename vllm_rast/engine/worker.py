"""The worker, one thin subclass for each platform. `RastWorker` is this machine's."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest.mock import patch

from vllm.platforms import current_platform
from vllm.v1.worker.gpu_worker import Worker

from vllm_rast.errors import UserError


class TracingMixin:
    """What both workers tell of the rows that they mixed."""

    def compile_or_warm_up_model(self) -> Any:
        """The last step of a start: the rows of warming up are no request's."""
        times = super().compile_or_warm_up_model()  # type: ignore[misc]
        if (sums := self.trace_sums()) is not None:
            sums.read(take=True)
        return times

    def trace_sums(self) -> Any:
        """The ensemble's TraceSums, or None if the engine keeps none (or serves a plain model)."""
        return getattr(self.get_model(), "trace_sums", None)  # type: ignore[attr-defined]

    def rast_trace(self, take: bool = False) -> dict[str, float]:
        """{"kl_nats", "rows"}: the sum of KL(mix || base) and the number of rows that mixed; see `TraceSums`.

        For `collective_rpc("rast_trace")`, whose answers are the same from every rank that samples. take: begin at 0
        again.
        Raises UserError if the engine was started without a trace.
        """
        if (sums := self.trace_sums()) is None:
            raise UserError('trace: this engine keeps none; start it with additional_config {"rast": {"trace": true}}')
        return sums.read(take)

    def rast_token_traces(self) -> list[tuple[int, bytes]]:
        """(key, numbers) of every token trace that is finished; see `TokenTraces.take`.

        For `collective_rpc("rast_token_traces")`: ranks that do not sample have none, and others the same.
        Raises UserError if the engine was started without token traces.
        """
        if (traces := getattr(self.get_model(), "token_traces", None)) is None:  # type: ignore[attr-defined]
            option = 'additional_config {"rast": {"token_traces": true}}'
            raise UserError(f"token_traces: this engine keeps none; start it with {option}")
        return traces.take()

    def rast_decode_traces(self, request_ids: list[str]) -> list[tuple[str, int, int, bytes]]:
        """The traces of finished requests; see `DecodeTraces.take`. For `collective_rpc`: every rank the same."""
        traces = getattr(self.get_model(), "decode_traces", None)  # type: ignore[attr-defined]
        return [] if traces is None else traces.take(request_ids)


def drafting(worker: Any) -> AbstractContextManager[None]:
    """While a worker makes V2's runner: it takes the ensemble's own drafter, if `speculate` asks for one."""
    if not worker.use_v2_model_runner:
        return nullcontext()
    from vllm_rast.engine.v2_drafter import drafting_by_the_ensemble

    return drafting_by_the_ensemble(worker.vllm_config)


if current_platform.is_cpu():
    from vllm.v1.worker import cpu_worker

    from vllm_rast.engine.cpu_rejection import mend_rejection_sampling
    from vllm_rast.engine.cpu_sampling import sample_with_our_kernels
    from vllm_rast.engine.v1_runner import RastCPUModelRunner

    class RastWorker(TracingMixin, cpu_worker.CPUWorker):
        """The CPU worker builds its runner by a name in a module, which is replaced while it does."""

        def init_device(self) -> None:
            mend_rejection_sampling()
            sample_with_our_kernels()
            with self.our_runner(), drafting(self):
                super().init_device()

        def our_runner(self) -> Any:
            if not self.use_v2_model_runner:
                return patch.object(cpu_worker, "CPUModelRunner", RastCPUModelRunner)
            from vllm.v1.worker.cpu import model_runner

            from vllm_rast.engine.v2_runner import RastCPUModelRunnerV2

            return patch.object(model_runner, "CPUModelRunner", RastCPUModelRunnerV2)

else:

    class RastWorker(TracingMixin, Worker):  # type: ignore[no-redef]
        """The GPU worker asks for its runner; V2's asks the ensemble for its ModelState, and a name for its drafter."""

        def _make_model_runner(self) -> Any:
            if self.use_v2_model_runner:
                from vllm_rast.engine.v2_runner import RastGPUModelRunnerV2

                with drafting(self):
                    return RastGPUModelRunnerV2(self.vllm_config, self.device)
            from vllm_rast.engine.v1_runner import RastGPUModelRunner

            return RastGPUModelRunner(self.vllm_config, self.device)
