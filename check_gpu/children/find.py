"""Finds the installed ``llama_cpp`` without importing it.

python find.py RESULT
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
import re
import sys
import sysconfig
from pathlib import Path

PACKAGES = ("llama_cpp", "llama_cpp_cuda", "llama_cpp_cuda_tensorcores")
"""The names under which publishers install it; the first that is there is checked."""


def main(result_file: str) -> None:
    """Write one object: the interpreter, the package's folder, the distribution."""
    # A script's own folder is first on the path; a user's program does not have this folder.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
    package = _package()
    name, version = _distribution()
    result = {
        "python_version": platform.python_version(),
        "site": sysconfig.get_paths()["purelib"],
        "package": package,
        "distribution": name,
        "version": version or _own_version(package),
        "installer": _installer(),
    }
    Path(result_file).write_text(json.dumps(result) + "\n", encoding="utf-8")


def _package() -> str | None:
    """Return the folder of the package. A folder without ``__init__.py`` was left by an uninstalled package."""
    specs = map(importlib.util.find_spec, PACKAGES)
    return next((str(Path(spec.origin).parent) for spec in specs if spec is not None and spec.origin is not None), None)


def _distribution() -> tuple[str | None, str | None]:
    """Return name and version. Forks have names like ``llama-cpp-python-cuda``; the plain name wins."""
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"] or "").lower()
        if name.startswith("llama-cpp-python"):
            found.setdefault(name, distribution.version)
    return min(found.items(), default=(None, None))


def _installer() -> str:
    """Name what can install into this environment, as check_gpu/shell.py names it."""
    if importlib.util.find_spec("pip") is not None:
        return "pip"
    try:
        settings = Path(sys.prefix, "pyvenv.cfg").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not a virtual environment
        settings = ""
    if re.search(r"^uv\s*=", settings, re.MULTILINE):
        return "uv"
    return "ensurepip" if importlib.util.find_spec("ensurepip") is not None else "none"


def _own_version(package: str | None) -> str | None:
    """Read the version from the package itself, for one that was only copied."""
    if package is None:
        return None
    text = Path(package, "__init__.py").read_text(encoding="utf-8", errors="replace")
    match = re.search(r"""^__version__ = ["']([^"']+)""", text, re.MULTILINE)
    return match[1] if match else None


if __name__ == "__main__":
    main(*sys.argv[1:])
