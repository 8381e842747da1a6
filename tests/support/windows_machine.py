"""A Windows machine made of records (``tests/support/windows``): it answers, and keeps the calls."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import cast

from build_config.errors import CommandError
from build_config.model import CudaToolkit, Program, Toolchain
from build_config.steps.toolchain.windows import msvc
from build_config.system.layout import Layout
from build_config.system.platforms.windows import WINDOWS

RECORDS = Path(__file__).parent / "windows"
BUILD_TOOLS = PureWindowsPath(r"C:\Program Files (x86)\Microsoft Visual Studio\2022\BuildTools")
COMMUNITY_2019 = PureWindowsPath(r"C:\Program Files (x86)\Microsoft Visual Studio\2019\Community")
COMMUNITY_2026 = PureWindowsPath(r"C:\Program Files\Microsoft Visual Studio\18\Community")
VSWHERE = r"C:\Program Files (x86)\Microsoft Visual Studio\Installer\vswhere.exe"
USER_ENVIRONMENT = {
    "SYSTEMROOT": r"C:\Windows",
    "SystemDrive": "C:",
    "ProgramFiles": r"C:\Program Files",
    "ProgramFiles(x86)": r"C:\Program Files (x86)",
    "ProgramW6432": r"C:\Program Files",
    "ProgramData": r"C:\ProgramData",
    "TEMP": r"C:\Users\jörg\AppData\Local\Temp",
    "PATH": r"C:\Users\jörg\bin;C:\Strawberry\c\bin;C:\Windows\System32",
    "CL": "/O1",
    "_CL_": "/Od",
    "LINK": "/DEBUG",
    "INCLUDE": r"C:\mine\include",
    "CMAKE_GENERATOR": "Visual Studio 17 2022",
}
"""The environment of a user with many settings that must not matter."""


def record(name: str) -> str:
    return (RECORDS / name).read_text(encoding="utf-8")


@dataclass
class RecordedMachine(msvc.Probe):
    """The probe of ``toolchain.msvc``, answering from records."""

    toolsets: dict[PureWindowsPath, tuple[str, ...]] = field(
        default_factory=lambda: {
            BUILD_TOOLS: ("14.29.30133", "14.44.35207"),
            COMMUNITY_2019: ("14.29.30133",),
            COMMUNITY_2026: ("14.50.35717",),
        }
    )
    vswhere: str | None = field(default_factory=lambda: record("vswhere.json"))
    vcvarsall: str = field(default_factory=lambda: record("vcvarsall-2022.txt"))
    banner: str = field(default_factory=lambda: record("cl-en.txt"))
    calls: list[tuple[tuple[str, ...], dict[str, str], Path | None]] = field(default_factory=list)

    def run(self, argv: tuple[str, ...], environment: Mapping[str, str], cwd: Path | None = None) -> str:
        self.calls.append((argv, dict(environment), cwd))
        match PureWindowsPath(argv[0]).name.lower():
            case "vswhere.exe" if self.vswhere is not None:
                return self.vswhere
            case "cmd.exe":
                return self.vcvarsall
            case "cl.exe":
                return self.banner
            case "link.exe":
                return record("link.txt")
        message = f"{argv[0]} could not be started"
        raise CommandError(message)

    def is_file(self, path: PureWindowsPath) -> bool:
        if path.name == "vswhere.exe":
            return self.vswhere is not None
        return any(
            path.is_relative_to(root / "VC") and name in path.parts
            for root, names in self.toolsets.items()
            for name in names
        )

    def names(self, folder: PureWindowsPath) -> tuple[str, ...]:
        return self.toolsets.get(folder.parents[2], ())

    def digest(self, path: PureWindowsPath) -> str:
        return f"digest of {path}"


def windows_path(text: str) -> Path:
    """A path with Windows' rules instead of a ``Path``, which treats backslashes as letters on this system."""
    return cast("Path", PureWindowsPath(text))


def program(path: str, version: str) -> Program:
    return Program(path=windows_path(path), version=version, found_via="a test")


def toolchain(*, sccache: str | None = None) -> Toolchain:
    """The locked toolkit with the compiler of the records."""
    root = r"C:\llama-cuda-wheels\toolkit\cuda-13.0-0123456789ab"
    launcher = rf"C:\llama-cuda-wheels\tools\sccache.exe-{sccache}\sccache.exe"
    return Toolchain(
        cuda=CudaToolkit(
            root=windows_path(root),
            nvcc=program(rf"{root}\bin\nvcc.exe", "13.0.88"),
            version="13.0.88",
            identity="c" * 64,
            locked=True,
        ),
        host=msvc.find(range(1920, 1950), USER_ENVIRONMENT, RecordedMachine()),
        cmake=program(
            r"C:\Users\jörg\wheels\.nox\build_cuda_wheel\Lib\site-packages\cmake\data\bin\cmake.exe", "4.4.4"
        ),
        ninja=program(
            r"C:\Users\jörg\wheels\.nox\build_cuda_wheel\Lib\site-packages\ninja\data\bin\ninja.exe", "1.13.2"
        ),
        launcher=program(launcher, sccache) if sccache else None,
        cuobjdump=program(rf"{root}\bin\cuobjdump.exe", "13.2.86"),
        platform="win-amd64",
    )


def layout() -> Layout:
    return Layout(checkout=windows_path(r"C:\Users\jörg\wheels"), work_root=windows_path(str(WINDOWS.work_root)))
