"""Requests that cannot be sent to the engine: numbers beyond 64 bits, text that is not Unicode, other objects."""

from __future__ import annotations

import threading
from typing import Any

from vllm import envs
from vllm.v1.serial_utils import MsgpackEncoder

# What msgpack raises: an integer beyond 64 bits, half of a surrogate pair. No engine can use either.
UNWRITABLE = (OverflowError, UnicodeError)


def unwritable_field(request: Any) -> str | None:
    """The first field of a request that cannot be written, with the reason; None if all can.

    vLLM notices only when it sends the request to the engine's process, keeps it in its books, and waits for ever. An
    engine in this process takes any object.
    """
    encoder = _this_threads_encoder()
    refused = (Exception,) if envs.VLLM_ENABLE_V1_MULTIPROCESSING else UNWRITABLE
    try:
        encoder.encode(request)
    except refused as error:
        field = next(_unwritable(encoder, request, refused), "request")
        reason = "a number beyond 64 bits or text that is not Unicode" if isinstance(error, UNWRITABLE) else "of a kind"
        return f"{field}: {reason} that cannot be sent to the engine ({' '.join(str(error).split())})"
    return None


_kept = threading.local()


def _this_threads_encoder() -> MsgpackEncoder:
    """Making one costs more than all that it writes; it keeps buffers while it writes, so threads cannot share it."""
    if not hasattr(_kept, "encoder"):
        _kept.encoder = MsgpackEncoder()
    return _kept.encoder


def _unwritable(encoder: MsgpackEncoder, request: Any, refused: tuple[type[Exception], ...]) -> Any:
    for part in (request.sampling_params, request):
        for name in getattr(part, "__struct_fields__", ()):
            try:
                encoder.encode(getattr(part, name))
            except refused:
                yield name
