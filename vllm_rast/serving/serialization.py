"""Requests that cannot be written down for the engine: numbers beyond 64 bits, text that is no Unicode."""

from __future__ import annotations

import functools
from typing import Any

from vllm.exceptions import VLLMValidationError
from vllm.v1.serial_utils import MsgpackEncoder

# What msgpack raises: an integer beyond 64 bits, half of a surrogate pair.
UNWRITABLE = (OverflowError, UnicodeError)


def refusing_unwritable(process_inputs: Any) -> Any:
    """`InputProcessor.process_inputs` that raises vLLM's own validation error, naming the field.

    vLLM notices when it sends the request to the engine's process: it answers with 500 and no text, and keeps the
    request in its books for ever.
    """
    encoder = MsgpackEncoder()

    @functools.wraps(process_inputs)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        request = process_inputs(*args, **kwargs)
        try:
            encoder.encode(request)
        except UNWRITABLE as error:
            field = unwritable_field(encoder, request)
            message = f"{field}: a number beyond 64 bits or text that is no Unicode ({error})"
            raise VLLMValidationError(message, parameter=field) from None
        return request

    return wrapped


def unwritable_field(encoder: MsgpackEncoder, request: Any) -> str:
    """The first field of the sampling parameters, or else of the request, that cannot be written."""
    for part in (request.sampling_params, request):
        for name in getattr(part, "__struct_fields__", ()):
            try:
                encoder.encode(getattr(part, name))
            except UNWRITABLE:
                return name
    return "body"
