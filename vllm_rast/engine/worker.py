"""The worker, one thin subclass for each platform. `RastWorker` is this machine's."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from vllm.platforms import current_platform
from vllm.v1.worker.gpu_worker import Worker

if current_platform.is_cpu():
    from vllm.v1.worker import cpu_worker

    from vllm_rast.engine.runner import RastCPUModelRunner

    class RastWorker(cpu_worker.CPUWorker):
        """The CPU worker builds its V1 runner by a name in its module, which is replaced while it does."""

        def init_device(self) -> None:
            with patch.object(cpu_worker, "CPUModelRunner", RastCPUModelRunner):
                super().init_device()

else:

    class RastWorker(Worker):  # type: ignore[no-redef]
        """V2 needs no runner of ours: it asks the ensemble for its ModelState."""

        def _make_model_runner(self) -> Any:
            if self.use_v2_model_runner:
                return super()._make_model_runner()
            from vllm_rast.engine.runner import RastGPUModelRunner

            return RastGPUModelRunner(self.vllm_config, self.device)
