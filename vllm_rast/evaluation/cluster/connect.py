"""Connect to a Ray cluster, or start one on this machine."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from vllm_rast.errors import UserError

LOCAL = "local"
AUTO = "auto"
CLIENT = "ray://"
CONNECT_S = 10.0
OBJECT_STORE = 256 << 20  # bytes, of a cluster that is started here: jobs and answers are small
# What a replica's environment takes from here: Ray's processes have that of whoever started the cluster.
PASSED_ON = ("HF_", "OMP_", "PYTHONPATH", "RAST_", "TOKENIZERS_", "TORCH_", "VLLM_")
NOT_PASSED_ON = ("VLLM_API_KEY", "VLLM_HOST_IP", "VLLM_PORT")  # of this machine alone, or nobody's business


@contextmanager
def connected(address: str, option: str = "--ray") -> Iterator[Any]:
    """The `ray` module, connected to `address`: `local` starts a cluster that ends with this process, `auto` finds the
    one that this machine belongs to, and HOST:PORT or ray://HOST:PORT name one.

    Raises UserError, naming the option, if Ray is not installed or there is no cluster.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is reported to Ray's makers
    try:
        import ray
    except ImportError:
        raise UserError(f'{option}: Ray is not installed; pip install "vllm-rast[ray]"') from None
    if ray.is_initialized():  # by whoever called us, who ends it too
        yield ray
        return
    if address not in (LOCAL, AUTO):
        check_port(address, option)
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        try:
            ray.init(**init_options(address))
        except (OSError, RuntimeError, ValueError, ImportError) as error:  # ConnectionError is an OSError
            raise UserError(no_cluster(address, option, error)) from error
        finally:
            for number, handler in kept.items():  # Ray puts its own for SIGTERM
                signal.signal(number, handler)
        with quiet(ray):
            yield ray
    finally:
        ray.shutdown()


@contextmanager
def quiet(ray: Any) -> Iterator[None]:
    """What Ray prints about lost nodes goes to stdout, which is for results, and `log_to_driver` does not stop it."""
    with patch.object(ray._private.worker, "_worker_logs_enabled", False, create=True):
        yield


def init_options(address: str) -> dict[str, Any]:
    """Arguments of `ray.init`."""
    options: dict[str, Any] = {
        "address": address,
        "runtime_env": {"env_vars": passed_on()},
        "log_to_driver": False,
        "logging_level": "ERROR",
    }
    if address == LOCAL:
        options |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
    return options


def passed_on() -> dict[str, str]:
    """The environment variables that replicas get."""
    found = {
        name: value for name, value in os.environ.items() if name.startswith(PASSED_ON) and name not in NOT_PASSED_ON
    }
    if "PYTHONPATH" in found:  # a replica has another working directory
        found["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, found["PYTHONPATH"].split(os.pathsep)))
    return found


def check_port(address: str, option: str) -> None:
    """Raises UserError if nobody listens: Ray itself would try for a minute."""
    host, _, port = address.removeprefix(CLIENT).rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"{option} {address}: expected local, auto, HOST:PORT or {CLIENT}HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except OSError as error:
        raise UserError(no_cluster(address, option, error)) from error


def no_cluster(address: str, option: str, error: Exception) -> str:
    reason = " ".join(str(getattr(error, "strerror", None) or error or type(error).__name__).split())
    # A client that sends no token is not told so: it waits in vain.
    token = "set RAY_AUTH_MODE=token if it asks for one, " if address.startswith(CLIENT) else ""
    return (
        f"{option} {address}: no Ray cluster to work with ({reason[:300]}); {token}start one with `ray start --head`, "
        f"or say {option} local"
    )
