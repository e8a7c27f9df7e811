"""`python -m vllm_rast` is `vllm-rast`."""

import sys

from vllm_rast.cli.main import program

sys.exit(program())
