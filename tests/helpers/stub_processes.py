"""`vllm-rast` with stub engines in processes of this machine, and with none if one engine is asked for.

python tests/helpers/stub_processes.py generate --data-parallel-size 2 --run FOLDER ...
"""

from __future__ import annotations

import sys
from typing import Any

from fake_decoding import FakeBackend
from stub_engine import open_stub

from vllm_rast.cli import machines
from vllm_rast.evaluation.runs.processes import ProcessesBackend


def open_here(plan: Any) -> Any:
    """What `machines.open_here` is."""
    return ProcessesBackend(plan, open_stub) if plan.engines > 1 else FakeBackend()


if __name__ == "__main__":
    from vllm_rast.cli.main import program

    machines.open_here = open_here
    sys.exit(program())
