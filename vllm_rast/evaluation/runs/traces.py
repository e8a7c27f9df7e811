"""Token traces on disk: Parquet files beside a run, one line for each token.

    RUN/traces/HASH/config.json           the models, the ceiling and the mix that read the answers, or decoded them
    RUN/traces/HASH/vocabulary.parquet    the text of every id
    RUN/traces/HASH/part-*.parquet        the traces; pandas, polars and DuckDB read them as one table

HASH is of config.json: another ceiling or mix has a folder of its own, and nothing is ever mixed up. An answer is
named by its key (benchmark, row, problem, sample), as in samples.jsonl, and is written once. A part is a whole file or
none: `kill -9` loses at most the answers that ended within FLUSH_S seconds, Ctrl-C or an error none.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vllm_rast.errors import UserError
from vllm_rast.evaluation.runs.folder import Key, hash_of
from vllm_rast.evaluation.runs.jsonl import Lock, RunError, disk_message, write_atomically

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = "traces"
CONFIG = "config.json"
VOCABULARY = "vocabulary.parquet"
KEY_COLUMNS = ("benchmark", "row", "problem", "sample")
FLUSH_S = 5.0
MOST_PARTS = 16  # more are joined into one when a reading ends
# Columns that the engine hands out as float32 and that are whole numbers.
INTEGERS = re.compile(r"_(rank|argmax|top\d+)$")


class TraceFolder:
    """The traces of one run under one configuration, open for writing by one process at a time; a context manager.

    columns: the names of an answer's numbers. after_flush: called when all that was appended is on the disk.
    Raises UserError if another process writes, RunError if it cannot.
    """

    def __init__(
        self,
        run: Path,
        config: dict[str, Any],
        columns: Sequence[str],
        after_flush: Callable[[], None] = lambda: None,
    ) -> None:
        self.after_flush = after_flush
        self.path = run / FOLDER / hash_of(config)
        self.columns = list(columns)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.path}: {error.strerror}; traces are written beside the run") from error
        self._lock = Lock(self.path / ".lock")
        for left in self.path.glob(".part-*"):  # of a killed writer
            left.unlink(missing_ok=True)
        if not (self.path / CONFIG).exists():
            write_atomically(self.path / CONFIG, json.dumps(config, indent=2) + "\n")
        self.waiting: list[pa.Table] = []
        self.flushed = time.monotonic()

    def __enter__(self) -> TraceFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self.flush()
            self.join_parts()
        finally:
            self._lock.release()

    def add_vocabulary(self, texts: Sequence[str]) -> None:
        """Keep the text of every id, [num_ids]."""
        import pyarrow as pa

        if not (self.path / VOCABULARY).exists():
            ids = pa.array(np.arange(len(texts), dtype=np.int32))
            write_parquet(pa.table({"id": ids, "text": pa.array(texts, pa.string())}), self.path / VOCABULARY)

    def append(self, key: Key, token_ids: Sequence[int], exact: bool, numbers: np.ndarray) -> None:
        """Add one answer's trace, [num_tokens, len(columns)] in float32."""
        import pyarrow as pa

        count = len(token_ids)
        assert numbers.shape == (count, len(self.columns))
        data: dict[str, Any] = {
            name: pa.array([value] * count, pa.string() if isinstance(value, str) else pa.int32())
            for name, value in key._asdict().items()
        }
        data["position"] = pa.array(np.arange(count, dtype=np.int32))
        data["token"] = pa.array(np.asarray(token_ids, dtype=np.int32))
        data["exact"] = pa.array([exact] * count)
        for column, values in zip(self.columns, numbers.T, strict=True):
            data[column] = pa.array(values.astype(np.int32 if INTEGERS.search(column) else np.float32))
        self.waiting.append(pa.table(data))
        if time.monotonic() - self.flushed >= FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting as one more part."""
        import pyarrow as pa

        if self.waiting:
            write_parquet(pa.concat_tables(self.waiting), self.path / f"part-{self.next_number():06d}.parquet")
        self.waiting, self.flushed = [], time.monotonic()
        self.after_flush()

    def next_number(self) -> int:
        return max((int(path.stem.removeprefix("part-")) for path in parts_of(self.path)), default=-1) + 1

    def join_parts(self) -> None:
        """One file of many small ones. A crash before the last is deleted leaves answers twice; the first counts."""
        parts = parts_of(self.path)
        if len(parts) > MOST_PARTS:
            write_parquet(read_parts(self.path), self.path / f"part-{self.next_number():06d}.parquet")
            for path in parts:
                path.unlink()

    def done(self) -> set[Key]:
        """The keys of all answers that are written."""
        if not parts_of(self.path):
            return set()
        keys = read_parts(self.path, list(KEY_COLUMNS)).group_by(list(KEY_COLUMNS)).aggregate([])
        return {Key(**one) for one in keys.select(list(KEY_COLUMNS)).to_pylist()}


def parts_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


def read_parts(folder: Path, columns: list[str] | None = None) -> pa.Table:
    """All parts as one table. Raises UserError for a file that is not one."""
    import pyarrow as pa
    from pyarrow import parquet

    tables = []
    for path in parts_of(folder):
        try:
            tables.append(parquet.read_table(path, columns=columns))
        except (OSError, pa.ArrowInvalid) as error:
            raise UserError(f"{path}: damaged; delete this file and run again") from error
    return pa.concat_tables(tables)


def read_vocabulary(folder: Path) -> list[str]:
    """The text of every id, [num_ids]."""
    from pyarrow import parquet

    return parquet.read_table(folder / VOCABULARY)["text"].to_pylist()


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a file whole or not at all; raises RunError."""
    from pyarrow import parquet

    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        parquet.write_table(table, temporary, compression="zstd")
        os.replace(temporary, path)
    except OSError as error:
        raise RunError(disk_message(path, error)) from error
    finally:
        temporary.unlink(missing_ok=True)


def texts_of_ids(tokenizer: Any) -> list[str]:
    """The text of every id, [num_ids]."""
    return tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
