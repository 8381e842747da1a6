"""Find the host compiler on Windows: Microsoft's, by vswhere, with a toolset that the CUDA toolkit supports.

Visual Studio 2019 and later and the Build Tools are treated alike: an installation with toolsets below
``VC/Tools/MSVC``. Toolset 14.29 has ``_MSC_VER`` 1929 and the compiler 19.29; nvcc's ``crt/host_config.h`` states the
range that it supports. The environment is a bare one and what ``vcvarsall.bat`` adds to it: no variable of the user's.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any, cast

from packaging.version import Version

from build_config.errors import CommandError, CompilerMissingError, CompilerUnsupportedError, ToolkitMissingError
from build_config.model import HostCompiler, Program
from build_config.system import jsonio, processes
from build_config.system.files import file_sha256

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

VSWHERE = PureWindowsPath("Microsoft Visual Studio", "Installer", "vswhere.exe")
"""Below ``%ProgramFiles(x86)%``, wherever Visual Studio itself is: https://github.com/microsoft/vswhere/wiki/Installing"""
COMPONENT = "Microsoft.VisualStudio.Component.VC.Tools.x86.x64"
QUERY = ("-all", "-products", "*", "-requires", COMPONENT, "-format", "json", "-utf8")
WORKLOAD = "Microsoft.VisualStudio.Workload.VCTools"
OLDER_TOOLSETS = (
    (1940, "Microsoft.VisualStudio.Component.VC.14.39.17.9.x86.x64"),
    (1950, "Microsoft.VisualStudio.Component.VC.14.44.17.14.x86.x64"),
)
"""The component with the newest toolset below each ``_MSC_VER``; a Visual Studio that is too new lacks it."""
INSTALL = (
    'winget install Microsoft.VisualStudio.2022.BuildTools --override "--passive --wait '
    f'--add {WORKLOAD} --includeRecommended"'
)
HEADER = "include/crt/host_config.h"
SCRIPT = "vcvars.bat"
MARKER = "=== environment ==="
SECONDS_ALLOWED = 120.0
"""``vcvarsall.bat`` starts a dozen programs; with an active virus scanner that has taken a minute."""

KEPT = ("SystemRoot", "SystemDrive", "ComSpec", "ProgramFiles", "ProgramFiles(x86)", "ProgramW6432", "ProgramData")
"""Variables that Windows' own programs and ``vcvarsall.bat`` need. Users do not choose their values."""
KEPT_FOR_NVCC = "VSCMD_VER"
INSIDE = ("cl.exe", "c1.dll", "c1xx.dll", "c2.dll", "link.exe")
"""Files that determine the bytes: the driver, both front ends, the code generator, the linker."""

LOCKED_MSC_VER = range(1920, 1950)
"""The range in the locked toolkit's ``crt/host_config.h`` (a test compares it with the locked wheel)."""

_RANGE = re.compile(r"^\s*#\s*if\s+_MSC_VER\s*<\s*(?P<low>\d+)\s*\|\|\s*_MSC_VER\s*>=\s*(?P<high>\d+)", re.MULTILINE)
_CL_VERSION = re.compile(r"\b(?P<version>19\.\d+\.\d+(?:\.\d+)?)\b")
_LINK_VERSION = re.compile(r"\b(?P<version>14\.\d+\.\d+(?:\.\d+)?)\b")
_RUNTIME = re.compile(r"Microsoft\.VC\d+\.(CRT|OpenMP)", re.IGNORECASE)
_OWN = re.compile(r"__|VSCMD_|PROMPT$", re.IGNORECASE)
_TOOLSET = re.compile(r"14\.(?P<minor>\d\d)\.\d+")


class Probe:
    """Questions to this machine; tests answer from records."""

    def run(self, argv: tuple[str, ...], environment: Mapping[str, str], cwd: Path | None = None) -> str:
        """The output of a program with any status. Raises ``CommandError`` if it cannot be started."""
        command = processes.Command(argv=argv, environment=environment, cwd=cwd)
        return processes.run(command, check=False, timeout=SECONDS_ALLOWED).output

    def is_file(self, path: PureWindowsPath) -> bool:
        """Whether there is such a file."""
        return Path(path).is_file()

    def names(self, folder: PureWindowsPath) -> tuple[str, ...]:
        """The names in a folder; empty if there is no such folder."""
        return tuple(sorted(path.name for path in Path(folder).iterdir())) if Path(folder).is_dir() else ()

    def digest(self, path: PureWindowsPath) -> str:
        """SHA-256 of a file."""
        return file_sha256(Path(path))


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """One Visual Studio, or Build Tools. ``version`` is the installation's own: ``17.14.37027.9``."""

    name: str
    path: PureWindowsPath
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolset:
    """A compiler of an installation. ``version`` is the name of its folder: ``14.44.35207``."""

    installation: Installation
    version: str

    @property
    def msc_ver(self) -> int:
        """``_MSC_VER``: 1944 for 14.44."""
        return 1900 + int(self.version.split(".")[1])

    @property
    def programs(self) -> PureWindowsPath:
        """The folder of the 64-bit compiler for 64-bit code."""
        return self.installation.path / "VC" / "Tools" / "MSVC" / self.version / "bin" / "Hostx64" / "x64"


def supported(cuda_root: Path) -> range:
    """The values of ``_MSC_VER`` that this toolkit's nvcc accepts. Raises ``ToolkitMissingError``."""
    try:
        limits = parse_range((cuda_root / HEADER).read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        raise ToolkitMissingError(f"the CUDA toolkit at {cuda_root} is not complete: it has no {HEADER}") from error
    if limits is None:
        raise ToolkitMissingError(f"{cuda_root / HEADER} does not say which Visual C++ this CUDA toolkit supports")
    return limits


def parse_range(header: str) -> range | None:
    """The values between ``#if _MSC_VER < 1920 || _MSC_VER >= 1950`` in ``crt/host_config.h``."""
    match = _RANGE.search(header)
    return range(int(match["low"]), int(match["high"])) if match else None


def find(accepted: range | None, environ: Mapping[str, str], probe: Probe | None = None) -> HostCompiler:
    """Find the newest toolset in ``accepted``; without it, the newest of all.

    Raises ``CompilerMissingError`` if there is no Visual C++, ``CompilerUnsupportedError`` if none is accepted; both
    say what to install.
    """
    probe = probe or Probe()
    bare = bare_environment(environ)
    installations = _installations(bare, probe)
    toolset = choose(tuple(_toolsets(installations, probe)), accepted)
    environment = captured(toolset, bare, probe)
    cl, link = toolset.programs / "cl.exe", toolset.programs / "link.exe"
    full = bare | environment
    version = _version(cl, _CL_VERSION, full, probe)
    linker = _version(link, _LINK_VERSION, full, probe)
    program = Program(path=_path(cl), version=version, found_via=f"vswhere: {toolset.installation.name}")
    digest = hashlib.sha256(f"{version}\n".encode())
    for name in INSIDE:
        digest.update(f"{name} {probe.digest(toolset.programs / name)}\n".encode())
    sdk = environment.get("WindowsSDKVersion", "unknown").strip("\\")
    return HostCompiler(
        cc=program,
        cxx=program,
        identity=digest.hexdigest(),
        binutils=f"Microsoft Incremental Linker {linker}",
        system=(("windows sdk", sdk), ("ucrt", environment.get("UCRTVersion", "unknown").strip("\\"))),
        environment=tuple(sorted(environment.items())),
    )


def runtime_folders(host: HostCompiler, probe: Probe | None = None) -> tuple[Path, ...]:
    """Folders of the redistributable DLLs of the toolset in use: the C++ library and OpenMP."""
    probe = probe or Probe()
    folder = PureWindowsPath(dict(host.environment).get("VCToolsRedistDir", "")) / "x64"
    return tuple(_path(folder / name) for name in probe.names(folder) if _RUNTIME.fullmatch(name))


# --------------------------------------------------------------------------------------------------------- looking


def parse_vswhere(text: str) -> tuple[Installation, ...]:
    """The complete installations in vswhere's JSON, the newest first, pre-releases last. Raises ``ValueError``."""
    found: list[Any] = json.loads(text or "[]")
    if not isinstance(found, list):
        raise ValueError("not a list")  # noqa: TRY004  # as for text that is not JSON
    if not all(isinstance(one, dict) and isinstance(one.get("installationVersion"), str) for one in found):
        raise ValueError("not a list of installations")
    usable = [one for one in found if one.get("isComplete", True)]
    usable.sort(key=lambda one: (not one.get("isPrerelease", False), Version(one["installationVersion"])), reverse=True)
    return tuple(
        Installation(
            name=one.get("displayName", "Visual Studio"),
            path=PureWindowsPath(one["installationPath"]),
            version=one["installationVersion"],
        )
        for one in usable
    )


def choose(toolsets: tuple[Toolset, ...], accepted: range | None) -> Toolset:
    """The newest accepted toolset; of two equal ones, that of the first installation.

    Raises ``CompilerMissingError`` without any toolset, ``CompilerUnsupportedError`` if none is accepted.
    """
    if not toolsets:
        message = f"no Visual C++ for x64 is installed: vswhere finds nothing with {COMPONENT}"
        raise CompilerMissingError(message, remedy=INSTALL)
    fitting = [one for one in toolsets if accepted is None or one.msc_ver in accepted]
    if not fitting:
        have = ", ".join(f"{one.version} ({one.installation.name})" for one in toolsets)
        first, last = (accepted[0], accepted[-1]) if accepted else (0, 0)
        wanted = f"_MSC_VER {first} to {last}, which is 14.{first % 100} to 14.{last % 100}"
        message = f"this CUDA toolkit does not support Visual C++ {have}: it needs {wanted}"
        raise CompilerUnsupportedError(message, remedy=_remedy(toolsets[0].installation, last + 1))
    return max(fitting, key=lambda one: Version(one.version))


def bare_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment for Windows alone. Windows ignores the case of variable names."""
    known = {name.casefold(): value for name, value in environ.items()}
    bare = {name: known[name.casefold()] for name in KEPT if name.casefold() in known}
    root = PureWindowsPath(bare.get("SystemRoot", r"C:\Windows"))
    system = root / "System32"
    return {
        **bare,
        "SystemRoot": str(root),
        "ComSpec": str(system / "cmd.exe"),
        "Path": ";".join(map(str, (system, root, system / "Wbem", system / "WindowsPowerShell" / "v1.0"))),
        "PATHEXT": ".COM;.EXE;.BAT;.CMD",
        "PROCESSOR_ARCHITECTURE": "AMD64",
        "TEMP": known.get("temp", str(root / "Temp")),
        "TMP": known.get("temp", str(root / "Temp")),
        "VSCMD_SKIP_SENDTELEMETRY": "1",
        "VSLANG": "1033",  # English: Ninja reads the compiler's "Note: including file:"
    }


def script_arguments(toolset: Toolset, bare: Mapping[str, str]) -> tuple[str, ...]:
    """The call of our script, from its own folder: a path with blanks in front would confuse ``cmd /c``."""
    vcvarsall = toolset.installation.path / "VC" / "Auxiliary" / "Build" / "vcvarsall.bat"
    return (bare["ComSpec"], "/d", "/c", SCRIPT, str(vcvarsall), toolset.version)


def captured(toolset: Toolset, bare: Mapping[str, str], probe: Probe) -> dict[str, str]:
    """The variables that ``vcvarsall.bat`` adds or changes. Raises ``CompilerMissingError`` if it fails."""
    try:
        output = probe.run(script_arguments(toolset, bare), bare, Path(__file__).parent)
    except CommandError as error:
        raise CompilerMissingError(error.message, remedy=_modify(toolset.installation)) from error
    added = difference(bare, parse_set(output))
    if not {"INCLUDE", "LIB", "PATH"} <= {name.upper() for name in added}:
        said = " | ".join([line for line in output.splitlines() if line.strip()][-3:])
        message = f"vcvarsall.bat of {toolset.installation.name} does not set up toolset {toolset.version}: {said}"
        raise CompilerMissingError(message, remedy=_modify(toolset.installation))
    return added


def parse_set(output: str) -> dict[str, str]:
    """The variables that ``set`` printed after the marker; empty if the script did not get that far."""
    _, marker, text = output.partition(MARKER)
    pairs = (line.partition("=") for line in text.splitlines()) if marker else iter(())
    return {name: value for name, equals, value in pairs if equals and name}


def difference(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    """New and changed variables by their present names, without the script's own.

    ``VSCMD_VER`` is kept: without it nvcc runs ``vcvars64.bat`` for every file, which takes the newest toolset instead
    of the chosen one (``nvcc --help``, ``--force-cl-env-setup``).
    """
    old = {name.casefold(): value for name, value in before.items()}
    return {
        name: value
        for name, value in after.items()
        if old.get(name.casefold()) != value and (name.upper() == KEPT_FOR_NVCC or not _OWN.match(name))
    }


def parse_banner(text: str, pattern: re.Pattern[str] = _CL_VERSION) -> str | None:
    """The ``19.44.35219`` of cl's first line in any language: only the digits are the same everywhere."""
    match = pattern.search(text)
    return match["version"] if match else None


def _installations(bare: Mapping[str, str], probe: Probe) -> tuple[Installation, ...]:
    folder = bare.get("ProgramFiles(x86)", r"C:\Program Files (x86)")
    vswhere = PureWindowsPath(folder) / VSWHERE
    if not probe.is_file(vswhere):
        message = f"Visual Studio is not installed: there is no {vswhere}, which every version since 2017 has"
        raise CompilerMissingError(message, remedy=INSTALL)
    output = ""
    try:
        output = probe.run((str(vswhere), *QUERY), bare)
        return parse_vswhere(output)
    except (CommandError, *jsonio.NOT_JSON, LookupError, TypeError) as error:
        message = f"{vswhere} does not list the installations: {output[-200:].strip() or error}"
        raise CompilerMissingError(message, remedy="repair Visual Studio with its Installer") from error


def _toolsets(installations: tuple[Installation, ...], probe: Probe) -> Iterator[Toolset]:
    for installation in installations:
        for name in sorted(probe.names(installation.path / "VC" / "Tools" / "MSVC"), reverse=True):
            toolset = Toolset(installation=installation, version=name)
            if _TOOLSET.fullmatch(name) and probe.is_file(toolset.programs / "cl.exe"):
                yield toolset


def _version(program: PureWindowsPath, pattern: re.Pattern[str], environment: Mapping[str, str], probe: Probe) -> str:
    try:
        output = probe.run((str(program),), environment)
    except CommandError as error:
        raise CompilerMissingError(error.message, remedy=INSTALL) from error
    version = parse_banner(output, pattern)
    if version is None:
        raise CompilerMissingError(f"{program} does not print its version: {output[:200].strip()}", remedy=INSTALL)
    return version


def _remedy(installation: Installation, too_new: int) -> str:
    """How to add the toolset below ``too_new``."""
    component = next((name for limit, name in OLDER_TOOLSETS if limit == too_new), None)
    if component is None:
        return INSTALL
    return f"add the older toolset: {_modify(installation, component)}"


def _modify(installation: Installation, added: str = f"{WORKLOAD} --includeRecommended") -> str:
    setup = r'"%ProgramFiles(x86)%\Microsoft Visual Studio\Installer\setup.exe"'
    return f'{setup} modify --installPath "{installation.path}" --add {added} --passive'


def _path(path: PureWindowsPath) -> Path:
    """The path for the model. On other systems, in tests, it stays a path with Windows' rules."""
    return Path(path) if os.name == "nt" else cast("Path", path)
