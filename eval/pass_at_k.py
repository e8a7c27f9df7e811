"""Unbiased pass@k of prediction files in the original RAST repository's format.

python eval/pass_at_k.py FOLDER --k 1 8 32
"""

from vllm_rast.cli.rescore import main
from vllm_rast.evaluation.scores.metric import PASS_AT_K

if __name__ == "__main__":
    raise SystemExit(main(PASS_AT_K))
