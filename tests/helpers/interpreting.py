"""Programs that Triton's interpreter runs, with a job as JSON, and a result as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import forked
from paths import ROOT

HELPERS = ROOT / "tests" / "helpers"
ENVIRONMENT = {
    **dict(forked.InterpretedPopen.own),
    "VLLM_USE_V2_MODEL_RUNNER": "1",
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(HELPERS)]),
}


def run_interpreted(
    program: Path, folder: Path, job: dict[str, Any], popen: type[subprocess.Popen[Any]] = forked.InterpretedPopen
) -> dict[str, Any]:
    """The result of a program that is given two files, one with the job and one for the result."""
    said, result = folder / "job.json", folder / "result.json"
    said.write_text(json.dumps(job))
    command = [sys.executable, program, said, result]
    done = forked.run(command, popen, env=os.environ | ENVIRONMENT, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-4000:]
    return json.loads(result.read_text())
