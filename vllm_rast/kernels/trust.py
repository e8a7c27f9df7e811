"""Whose files a library may be loaded from: ours and the system's, in folders that nobody else can write.

A cache below a shared folder, or made under a permissive umask, may hold what somebody else put there, and a library
that is loaded is code that runs. Everything is checked on open files, without following symbolic links.
"""

from __future__ import annotations

import errno
import grp
import os
import stat
from pathlib import Path


class UntrustedError(Exception):
    """A folder or file that others can write, in one line."""


def open_folder(folder: Path) -> int:
    """A descriptor of a folder that only we and the system can write, below such folders. Raises UntrustedError."""
    folder = Path(os.path.realpath(folder.parent)) / folder.name  # a link above it counts by what it leads to
    for ancestor in reversed(folder.parents):
        check(os.stat(ancestor), str(ancestor), sticky=True)
    return _opened(folder, os.O_RDONLY | os.O_DIRECTORY)


def open_file(folder_fd: int, name: str) -> int:
    """A descriptor of a regular file in an open folder that only we and the system can write."""
    return _opened(name, os.O_RDONLY, folder_fd)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it for us alone."""
    for path in (*reversed(folder.parents), folder):
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            continue
        except OSError:
            if not path.is_dir():  # a file system's root that cannot be written to
                raise


def check(found: os.stat_result, name: str, sticky: bool = False, at: int | None = None) -> None:
    """Raises UntrustedError if another user can write a file or folder. sticky: such as /tmp may be an ancestor."""
    if found.st_uid not in (0, os.geteuid()):
        raise UntrustedError(f"{name} belongs to another user")
    if sticky and found.st_mode & stat.S_ISVTX:
        return
    by_group = found.st_mode & stat.S_IWGRP and (_has_acl(name if at is None else at) or not _is_private(found.st_gid))
    if found.st_mode & stat.S_IWOTH or by_group:
        raise UntrustedError(f"{name} can be written by others")


def _has_acl(path: str | int) -> bool:
    """Whether a file has an access list: its group's bits are then those of everybody in the list."""
    try:
        return bool(os.getxattr(path, "system.posix_acl_access"))
    except OSError:
        return False


def _is_private(gid: int) -> bool:
    """Whether a group has no member but us, as where every user has a group of the same number."""
    if gid == 0:
        return True
    try:
        members = grp.getgrgid(gid).gr_mem
    except KeyError:
        return False
    return gid == os.geteuid() and not members


def _opened(path: str | Path, flags: int, folder_fd: int | None = None) -> int:
    try:
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder_fd)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise UntrustedError(f"{path} is a symbolic link or not a folder") from error
        raise
    try:
        found = os.fstat(fd)
        if not flags & os.O_DIRECTORY and not stat.S_ISREG(found.st_mode):
            raise UntrustedError(f"{path} is not a regular file")
        check(found, str(path), at=fd)
    except BaseException:
        os.close(fd)
        raise
    return fd
