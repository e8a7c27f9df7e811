"""Retrain the four shipped models from seeds; the same as `python -m vllm_rast.tiny.train`."""

import sys

from vllm_rast.tiny.train import main

if __name__ == "__main__":  # the processes that train import this file again
    sys.exit(main())
