"""Exact majority@k of prediction files in the original RAST repository's format.

python eval/maj_at_k.py FOLDER --k 1 8 32
"""

from vllm_rast.cli.rescore import main
from vllm_rast.evaluation.scores.metric import MAJ_AT_K

if __name__ == "__main__":
    raise SystemExit(main(MAJ_AT_K))
