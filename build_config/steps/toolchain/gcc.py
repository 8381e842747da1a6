"""Find the host compiler GCC, and compare its version with what nvcc supports."""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from build_config.errors import (
    CommandError,
    CompilerMissingError,
    CompilerUnsupportedError,
    SettingsError,
    ToolkitMissingError,
)
from build_config.model import HostCompiler, Program
from build_config.system import processes
from build_config.system.files import file_sha256

if TYPE_CHECKING:
    from collections.abc import Mapping

OLDEST_MAJOR = 9
"""The first GCC with all of C++17 that llama.cpp uses."""

NEWEST_LOOKED_FOR = 20
INSTALL = "install g++: sudo apt install g++ (Debian, Ubuntu), sudo dnf install gcc-c++ (Fedora, RHEL)"
HEADER_PLACES = ("include/crt/host_config.h", "targets/x86_64-linux/include/crt/host_config.h")
SYSTEM_HEADER = Path("/usr/include/crt/host_config.h")  # Debian's own package of the toolkit

_LIMIT = re.compile(r"^\s*#\s*if\s+__GNUC__\s*>\s*(?P<major>[0-9]+)", re.MULTILINE)
_INSIDE = ("cc1", "cc1plus", "as", "ld")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    cxx: Path
    cc: Path
    found_via: str


def supported_major(cuda_root: Path) -> int:
    """The newest GCC major version that this toolkit's nvcc supports, from its own header.

    Raises ``ToolkitMissingError`` if the header is missing or does not mention GCC.
    """
    places = [cuda_root / place for place in HEADER_PLACES]
    header = next((place for place in (*places, SYSTEM_HEADER) if place.is_file()), None)
    if header is None:
        message = f"the CUDA toolkit at {cuda_root} is not complete: it has no {HEADER_PLACES[0]}"
        raise ToolkitMissingError(message, remedy="leave out --cuda system: the locked toolkit is complete")
    limit = parse_limit(header.read_text(encoding="utf-8", errors="replace"))
    if limit is None:
        message = f"{header} does not say which GCC this CUDA toolkit supports"
        raise ToolkitMissingError(message, remedy="leave out --cuda system: the header of the locked toolkit does")
    return limit


def parse_limit(header: str) -> int | None:
    """The ``15`` of ``#if __GNUC__ > 15`` in ``crt/host_config.h``."""
    match = _LIMIT.search(header)
    return int(match["major"]) if match else None


def find(cuda_root: Path | None, environ: Mapping[str, str]) -> HostCompiler:
    """Find the GCC of CXX and CC, else ``g++`` on PATH, else the newest ``g++-N`` there that the toolkit supports.

    Without ``cuda_root`` every version is accepted. Raises ``CompilerMissingError``, ``CompilerUnsupportedError``, and
    ``SettingsError`` if CXX or CC is more than the name of a program.
    """
    return choose(supported_major(cuda_root) if cuda_root else None, environ)


def choose(newest: int | None, environ: Mapping[str, str]) -> HostCompiler:
    """``find`` for a toolkit that supports GCC up to the major version ``newest``."""
    named = _from_variables(environ)
    default = named or _pair("g++", "g++ on PATH", environ)
    refusal = _refusal(default, newest, environ) if default is not None else None
    if default is not None and refusal is None:
        return _host_compiler(default, environ)
    if refusal is not None and named is not None:
        raise refusal
    for major in range(newest or NEWEST_LOOKED_FOR, OLDEST_MAJOR - 1, -1):
        because = f": {refusal.message}" if refusal is not None else ""
        versioned = _pair(f"g++-{major}", f"g++-{major} on PATH{because}", environ)
        if versioned is not None and _refusal(versioned, newest, environ) is None:
            return _host_compiler(versioned, environ)
    if refusal is not None:
        raise refusal
    path = environ.get("PATH", "") or "(empty)"
    message = f"no C++ compiler: CXX and CC are not set, and there is no g++ with its gcc on PATH ({path})"
    raise CompilerMissingError(message, remedy=INSTALL)


# --------------------------------------------------------------------------------------------------------- looking


def _from_variables(environ: Mapping[str, str]) -> _Candidate | None:
    cxx, cc = environ.get("CXX", "").strip(), environ.get("CC", "").strip()
    if not cxx and not cc:
        return None
    for variable, value in (("CXX", cxx), ("CC", cc)):
        if len(shlex.split(value)) > 1:
            message = f"{variable}={value}: it must name the compiler only"
            raise SettingsError(message, remedy=f"set {variable} to the program; --launcher ccache adds the launcher")
    source = "CXX" if cxx else "CC"
    pair = _pair(cxx or _partner(cc, "gcc", "g++"), source, environ, cc=cc or None)
    if pair is None:
        message = f"{source}={cxx or cc}: the compiler or its partner for C or C++ was not found"
        raise CompilerMissingError(message, remedy=f"unset {source}, or {INSTALL}")
    return pair


def _pair(cxx: str, found_via: str, environ: Mapping[str, str], *, cc: str | None = None) -> _Candidate | None:
    path = environ.get("PATH", "")
    cxx_path = shutil.which(cxx, path=path)
    cc_path = shutil.which(cc or _partner(cxx, "g++", "gcc"), path=path)
    if cxx_path is None or cc_path is None:
        return None
    return _Candidate(cxx=Path(cxx_path), cc=Path(cc_path), found_via=found_via)


def _partner(program: str, old: str, new: str) -> str:
    """``/opt/x/bin/g++-13`` -> ``/opt/x/bin/gcc-13`` and back."""
    folder, slash, name = program.rpartition("/")
    return folder + slash + name.replace(old, new)


# --------------------------------------------------------------------------------------------------------- judging


def _refusal(
    candidate: _Candidate, newest: int | None, environ: Mapping[str, str]
) -> CompilerMissingError | CompilerUnsupportedError | None:
    """The reason not to use this compiler, or ``None``."""
    version = _version(candidate.cxx, environ)
    if version is None:
        message = f"{candidate.cxx} ({candidate.found_via}) is not GCC or does not run"
        return CompilerMissingError(message, remedy=INSTALL)
    major = int(version.split(".")[0])
    if newest is not None and major > newest:
        message = f"{candidate.cxx} is GCC {version}; this CUDA toolkit supports GCC {newest} at the newest"
        remedy = (
            f"install g++-{newest} next to it: sudo apt install g++-{newest} (Debian, Ubuntu), "
            f"sudo dnf install gcc{newest}-c++ (Fedora); it is then found automatically, or set CXX=g++-{newest}"
        )
        return CompilerUnsupportedError(message, remedy=remedy)
    if major < OLDEST_MAJOR:
        message = f"{candidate.cxx} is GCC {version}; llama.cpp needs GCC {OLDEST_MAJOR} or later"
        return CompilerUnsupportedError(message, remedy=INSTALL)
    return None


def _version(program: Path, environ: Mapping[str, str]) -> str | None:
    """``12.2.0``; ``None`` if the program does not run, and for Clang, which answers 4.2.1 or not at all."""
    answer = _ask(program, "-dumpfullversion", environ)
    return answer if answer is not None and re.fullmatch(r"[0-9]+(\.[0-9]+)*", answer) else None


def _host_compiler(candidate: _Candidate, environ: Mapping[str, str]) -> HostCompiler:
    programs = []
    for path in (candidate.cc, candidate.cxx):
        version = _version(path, environ)
        if version is None:
            raise CompilerMissingError(f"{path} ({candidate.found_via}) is not GCC or does not run", remedy=INSTALL)
        programs.append(Program(path=path, version=version, found_via=candidate.found_via))
    cc, cxx = programs
    return HostCompiler(cc=cc, cxx=cxx, identity=_identity(cxx, environ), binutils=_binutils(cxx, environ))


def _binutils(cxx: Program, environ: Mapping[str, str]) -> str:
    """The first line of ``ld --version``: ``GNU ld (GNU Binutils for Debian) 2.40``."""
    linker = shutil.which(_ask(cxx.path, "-print-prog-name=ld", environ) or "ld", path=environ.get("PATH", ""))
    answer = _ask(Path(linker), "--version", environ) if linker else None
    return answer.splitlines()[0].strip() if answer else "unknown"


def _identity(cxx: Program, environ: Mapping[str, str]) -> str:
    """A digest over the version, the target, and the bytes of the programs that do the work."""
    digest = hashlib.sha256(f"{cxx.version}\n{_ask(cxx.path, '-dumpmachine', environ)}\n".encode())
    for name in _INSIDE:
        answer = _ask(cxx.path, f"-print-prog-name={name}", environ)
        path = shutil.which(answer or name, path=environ.get("PATH", ""))
        if path is None:
            message = f"{cxx.path} needs the program {name}, which is missing: the installation is incomplete"
            raise CompilerMissingError(message, remedy=INSTALL)
        digest.update(f"{name} {file_sha256(Path(path))}\n".encode())
    return digest.hexdigest()


def _ask(program: Path, option: str, environ: Mapping[str, str]) -> str | None:
    try:
        completed = processes.capture(str(program), option, environment={**environ, "LC_ALL": "C"})
    except CommandError:
        return None
    return completed.output.strip() if completed.returncode == 0 else None
