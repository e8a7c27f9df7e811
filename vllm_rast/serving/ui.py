"""The page at `/`: the base's answer and the mix's side by side. Plain files, which ask the server's own API."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from vllm_rast.mix.config import RastConfig

FILES = Path(__file__).with_suffix("")
# Every file there is: a request never names a path.
MEDIA_TYPES = {
    "api.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "page.js": "text/javascript",
    "style.css": "text/css",
    "tokens.js": "text/javascript",
}
# The page loads these files and calls this server; nothing else, and nobody may frame it.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def mount(app: Starlette, engine_client: Any, rast_config: RastConfig) -> None:
    """Add `/`, `/ui/*` and `/ui/config.json` to vLLM's app.

    They are outside what an API key guards, so they tell nothing but the number of pairs, their default alphas, and
    how many tokens are drafted.
    """

    def add(path: str, response: Response) -> None:
        async def answer(request: Request) -> Response:
            return response

        app.router.add_route(path, answer, methods=["GET"], include_in_schema=False)  # and HEAD, as Starlette has it

    add("/", Response((FILES / "index.html").read_bytes(), media_type="text/html", headers=HEADERS))
    for name, media_type in MEDIA_TYPES.items():
        add(f"/ui/{name}", Response((FILES / name).read_bytes(), media_type=media_type, headers=HEADERS))
    told = {"alphas": rast_config.alphas, "speculate": rast_config.speculate}
    add("/ui/config.json", JSONResponse(told, headers=HEADERS))
