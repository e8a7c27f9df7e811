"""Errors that are the user's to mend."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in what the user asked for.

    The message is one line that names the option and the remedy; the command line prints it without a traceback and
    exits with 2.
    """
