"""`python -m vllm_rast` is `vllm-rast`."""

import sys

from vllm_rast.cli.main import main

sys.exit(main())
