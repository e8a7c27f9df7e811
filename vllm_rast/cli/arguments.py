"""Options that several commands share: run folders, models, problems and sampling."""

from __future__ import annotations

import argparse

DEFAULT_N = 8
EPILOG = """\
All of vLLM's engine options are accepted under their own names, such as --tensor-parallel-size 4; --help=engine lists
them, --help=max-num-seqs explains one. Exit codes: 0 done, 1 error, 2 usage, 130 interrupted.
"""


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", metavar="FOLDER", help="run folder to begin or to go on with, such as runs/NAME")
    parser.add_argument("--dry-run", action="store_true", help="print what would be decoded, load no model")
    add_lock_argument(parser)
    parser.add_argument(
        "--trace",
        type=int,
        metavar="K",
        help="with every token keep its log-probability by mix, base, positive and negative, and the K likeliest ids of"
        " each (0 to 20), in RUN/traces as Parquet files",
    )
    parser.add_argument("--backend", default="vllm", choices=("vllm", "transformers"), help="default: %(default)s")


def add_machine_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "machines",
        "elsewhere than in this process; the run folder is the same. Several engines on this machine: vLLM's own"
        " --data-parallel-size",
    )
    group.add_argument(
        "--ray",
        metavar="auto|local|ADDRESS",
        help="decode on a Ray cluster: the one that this machine is part of, one that is started here, or HOST:PORT",
    )
    group.add_argument(
        "--replicas", type=int, metavar="N", help="engines on the cluster (default: as many as there is room for)"
    )
    group.add_argument(
        "--replica-cpus",
        type=int,
        metavar="N",
        help="CPU cores of each (default: 1 beside GPUs and for the shipped models, else a node's)",
    )
    group.add_argument(
        "--servers",
        nargs="+",
        metavar="URL",
        help="decode through `vllm-rast serve` instances of this mix, such as http://host:8000",
    )
    group.add_argument(
        "--retry-failed", action="store_true", help="try samples again that were given up (see failed.jsonl)"
    )


def add_lock_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-lock",
        action="store_true",
        help="write run folders without a lock, on file systems that have none; nobody else may write them",
    )


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "models", "a folder, a hub id, OWNER/NAME@REVISION, tiny:NAME, a PEFT adapter, or MODEL+ADAPTER"
    )
    group.add_argument("--model", metavar="BASE", help="the base, whose vocabulary and prompt template count")
    group.add_argument("--positive", metavar="MODEL", help="the small tuned model")
    group.add_argument(
        "--negative", metavar="MODEL", help="the small model before tuning (of an adapter: what it is on)"
    )
    group.add_argument(
        "--alpha",
        type=alpha_text,
        help="strength of the difference (default: 1.0), or with a gate as JSON:"
        ' \'{"alpha": 1, "gate": {"js": 0.1}}\' (docs/weights.md)',
    )
    group.add_argument(
        "--pair",
        action="append",
        default=[],
        metavar="P,N[,ALPHA]",
        help="a further pair, may be repeated; an empty side is left out; without ALPHA, --alpha counts",
    )
    group.add_argument(
        "--check-tokenizers",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="refuse small models whose vocabulary differs from the base's (default: yes)",
    )
    group.add_argument(
        "--pair-forward",
        choices=("auto", "one", "two"),
        default="auto",
        help="run a positive that is an adapter on its negative together with it, as one forward that reads the weights"
        " once; auto: if that can be done and pays, on a CPU (default: auto)",
    )


def add_speculation_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "speculation",
        "a small model of the mix drafts some tokens, and one pass of all models verifies them: the answers are the"
        " mix's own, no weights and no keys and values are added, only K slots of the KV cache for each request",
    )
    group.add_argument(
        "--speculate",
        type=drafts,
        metavar="K|auto|0",
        help="tokens that are drafted before each pass; auto, in vLLM's V1 runner: as many as pay at the number of"
        " running requests; 0: none (default: 0)",
    )
    group.add_argument(
        "--drafter",
        metavar="NAME",
        help="the model that drafts: positive, negative, or positive:2 of the second pair (default: the first"
        " positive). At a temperature another drafter, or none, gives other samples; K changes the speed alone",
    )


def alpha_text(text: str) -> float | str:
    """A number, or the text itself: `default_alpha` reads JSON, and says what else there is."""
    if text.lstrip()[:1] == "{":
        return text
    try:
        return float(text)
    except ValueError:
        message = f'expected a number, or {{"alpha": A, "gate": {{...}}}} as JSON, got {text!r}'
        raise argparse.ArgumentTypeError(message) from None


def drafts(text: str) -> int | str:
    """A number, or the text itself: `check_speculate` says which numbers and words there are."""
    try:
        return int(text)
    except ValueError:
        return text


def add_decoding_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("problems")
    group.add_argument(
        "--benchmark",
        nargs="+",
        default=[],
        metavar="NAME",
        help="names that `vllm-rast benchmarks` lists, or YAML files of your own (default with the tiny models: tiny)",
    )
    group.add_argument("--input", metavar="FILE", help='JSON lines: {"id", "question" or "prompt"[, "answer"]}')
    group.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar="[NAME=]PATH",
        help="local JSON-lines file or folder with the benchmark's rows, if there is no network",
    )
    group.add_argument("--limit", type=int, metavar="N", help="decode only the first N problems of each benchmark")
    group.add_argument(
        "--shard",
        metavar="I/N",
        help="decode only part I of N of the problems, such as 3/8, into a folder of its own; `merge` joins them",
    )
    group.add_argument(
        "--template",
        metavar="NAME",
        help="prompt: paper, qwen-boxed, chat or a file with {question} in it (default: the benchmark's own, or paper)",
    )
    group.add_argument(
        "--skip-too-long",
        action="store_true",
        help="leave out problems whose prompts leave no room for an answer; the run folder and every table say so",
    )
    group = parser.add_argument_group("sampling", "defaults: the benchmark's own, or the paper's")
    group.add_argument("--n", type=int, help=f"samples of each problem (default: {DEFAULT_N}, greedy 1)")
    group.add_argument("--temperature", type=float, help="0 is greedy (default: 1.0)")
    group.add_argument("--top-p", type=float, help="default: 0.95, tiny 1.0")
    group.add_argument("--max-tokens", type=int, metavar="N", help="longest answer (default: 16384, tiny 96)")
    group.add_argument("--seed", type=int, default=0, help="the samples' seeds derive from it (default: %(default)s)")


def add_grader_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of grading that `evaluate` and `report` share."""
    parser.add_argument("--grader", default="default", help="default, or qwen for the published lineage's rules")
    parser.add_argument("--timeout", type=float, metavar="S", help="seconds the grader may take for one comparison")
    parser.add_argument("--workers", type=int, metavar="N", help="processes for answers that need a worker")
    parser.add_argument("--regrade", action="store_true", help="grade everything again")
    add_lock_argument(parser)
