"""What a request may ask to be kept of every token that it decodes."""

from __future__ import annotations

from vllm_rast.errors import UserError, shown

FIELD = "trace"
ANSWER_FIELD = "token_trace"  # of each choice that a server answers with
MAX_LIKELIEST = 20


def check_likeliest(value: object, option: str = FIELD, most: int = MAX_LIKELIEST) -> int:
    """Return a number of likeliest ids. Raises UserError unless it is an integer from 0 to `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise UserError(f"{option}: expected an integer from 0 to {most}, got {shown(value)}")
    return value
