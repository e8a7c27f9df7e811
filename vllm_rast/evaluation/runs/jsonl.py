"""JSON-lines files that survive a kill, a full disk and two writers."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vllm_rast.errors import UserError

# What file systems without locks answer: some NFS, Lustre, FUSE.
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no space on the disk, in the quota, below the limit of a file


class RunError(RuntimeError):
    """A run that had to stop (exit code 1). The message is one line; what was finished until then is kept."""


class LineFile:
    """A JSON-lines file open for appending, by one process at a time.

    The lock is the kernel's (flock on a file beside the data), so kill -9 leaves nothing stale. A last line
    that was not finished is cut off when the file is opened, and a line that could not be written whole is
    cut off at once: the file always ends with a complete line.

    Raises:
        UserError: another process holds the lock.
        RunError: the file cannot be opened or written.
    """

    def __init__(self, path: Path):
        self.path = path
        self._lock = Lock(path.with_name(f".{path.name}.lock"))
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            self._lock.release()
            raise RunError(disk_message(path, error)) from error
        self.size = os.fstat(self._fd).st_size  # bytes
        self._drop_half_line()

    def _drop_half_line(self) -> None:
        keep = complete_length(self._fd, self.size)
        if keep < self.size:
            print(
                f"vllm-rast: {self.path}: dropped a half-written last line ({self.size - keep} bytes); "
                "it will be made again",
                file=sys.stderr,
            )
            self.truncate(keep)

    def append(self, record: dict[str, Any]) -> None:
        """Write one line; it is in the kernel's hands when this returns, so a kill loses nothing."""
        line = memoryview((json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))
        written = 0
        try:
            while written < len(line):
                written += os.write(self._fd, line[written:])
        except BaseException as error:  # a full disk, or Ctrl-C between two writes
            os.ftruncate(self._fd, self.size)
            if isinstance(error, OSError):
                raise RunError(disk_message(self.path, error)) from error
            raise
        self.size += written

    def truncate(self, size: int) -> None:
        """Cut the file to `size` bytes."""
        os.ftruncate(self._fd, size)
        self.size = size

    def close(self) -> None:
        os.close(self._fd)
        self._lock.release()


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, record) for every complete line; a missing file counts as an empty one.

    A half-written last line is left out: a writer may be at work on it. Raises UserError for any other line
    that is not JSON.
    """
    if not path.exists():
        return
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
            except ValueError as error:
                if not file.read(1):
                    return
                raise UserError(f"{path}: line {number} is damaged; delete this line and run again") from error
            yield number, record


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader, or a crash, finds the old one or the new one; raises RunError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(disk_message(path, error)) from error


def disk_message(path: Path, error: OSError) -> str:
    """What went wrong with a file, on one line."""
    return f"{path}: {error.strerror}" + ("; free some space" if error.errno in FULL else "")


def complete_length(fd: int, size: int, chunk: int = 1 << 16) -> int:
    """Bytes of a JSON-lines file of `size` bytes, less a last line that is cut off or not JSON.

    After a loss of power the last line may be zeros up to its end: a newline alone proves nothing.
    """
    end = last_newline(fd, size, chunk) + 1
    if end == 0:
        return 0
    start = last_newline(fd, end - 1, chunk) + 1
    try:
        json.loads(os.pread(fd, end - start, start))
    except ValueError:
        return start
    return end


def last_newline(fd: int, end: int, chunk: int) -> int:
    """Offset of the last newline before `end`, or -1. Read backwards: a file may hold gigabytes."""
    while end > 0:
        start = max(0, end - chunk)
        found = os.pread(fd, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found
        end = start
    return -1


class Lock:
    """An exclusive lock of the kernel's, held until `release`; UserError if another process holds it.

    flock, which belongs to the open file; else the lock of POSIX, which belongs to the process. `needed` is False
    after --no-lock, for file systems that have neither.
    """

    needed = True
    _held: set[int] = set()

    def __init__(self, path: Path):
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise RunError(disk_message(path, error)) from error
        try:
            if Lock.needed:
                take_lock(self._fd)
        except (BlockingIOError, PermissionError):
            holder = os.pread(self._fd, 200, 0).decode(errors="replace").strip() or "another process"
            os.close(self._fd)
            raise UserError(
                f"--run {path.parent}: {holder} is writing this folder; wait for it or name another folder"
            ) from None
        except OSError as error:
            os.close(self._fd)
            raise UserError(
                f"--run {path.parent}: this file system has no locks ({error.strerror}); make sure that nobody else "
                "writes this folder, and say --no-lock"
            ) from error
        with contextlib.suppress(OSError):  # a full disk: the name of the holder is only a courtesy
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        Lock._held.add(self._fd)

    def release(self) -> None:
        Lock._held.discard(self._fd)
        os.close(self._fd)

    @classmethod
    def close_in_child(cls) -> None:
        """A forked child, an engine's worker, would keep its parent's lock after the parent was killed."""
        while cls._held:
            os.close(cls._held.pop())


def take_lock(fd: int) -> None:
    """Raises BlockingIOError or PermissionError if another process has the lock, OSError if there are no locks."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


os.register_at_fork(after_in_child=Lock.close_in_child)
