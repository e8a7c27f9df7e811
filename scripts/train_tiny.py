"""Retrain the four shipped models from seeds; the same as `python -m vllm_rast.tiny.train`."""

import sys

from vllm_rast.tiny.train import main

sys.exit(main())
