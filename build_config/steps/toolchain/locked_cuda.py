"""Make the root of the locked CUDA toolkit from NVIDIA's wheels.

The wheels contain all compilers, but they are meant for use from Python. Four faults are fixed: programs are not
executable, ``lib64`` is missing, libraries have no unversioned names to link against, and no wheel contains the stub of
the driver's library. On Windows one fault is fixed: cuBLAS has no import library.
"""

from __future__ import annotations

import calendar
import functools
import hashlib
import os
import re
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from build_config.errors import CommandError, LockError, StepResultError, ToolkitMissingError
from build_config.formats import wheelfile
from build_config.model import CudaToolkit, Program
from build_config.steps.toolchain.installed_cuda import nvcc_version
from build_config.steps.toolchain.windows import import_libraries
from build_config.system import jsonio, platforms, processes
from build_config.system.files import Verified, disk_full_is_said, file_sha256, look, rename, touch

if TYPE_CHECKING:
    from build_config.model import ToolkitLock
    from build_config.system.layout import Layout

STAMP = "toolkit.json"
COMPILER = "nvidia-cuda-nvcc"
COMPILES = frozenset({COMPILER, "nvidia-nvvm", "nvidia-cuda-culibos"})
"""Wheels that only a compilation needs: the compiler, its back end, a static library."""
PROGRAM_FOLDERS = ("bin", "nvvm/bin")

DRIVER_SYMBOLS = (
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuGetErrorString",
    "cuMemAddressFree",
    "cuMemAddressReserve",
    "cuMemCreate",
    "cuMemGetAllocationGranularity",
    "cuMemMap",
    "cuMemRelease",
    "cuMemSetAccess",
    "cuMemUnmap",
)
"""Functions of the driver's library that ggml-cuda uses."""

CUDA_ERROR_STUB_LIBRARY = 34
ANY_TIME = 1_577_836_800
"""2020-01-01: older than any build that links the stub, so that a toolkit that is made again relinks nothing."""

_SHARED_LIBRARY = re.compile(r"(?P<name>lib.+\.so)\.[0-9.]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """The contents of a finished root: ``files`` are all its files by name, and ``links`` the targets of its links."""

    identity: str
    version: str
    files: Mapping[str, Verified]
    links: Mapping[str, str]


def provide(lock: ToolkitLock, wheels: tuple[Path, ...], layout: Layout, *, cc: str) -> CudaToolkit:
    """Make the toolkit root for ``lock`` from its verified ``wheels``, or reuse it.

    ``cc`` is the C compiler for the driver stub (on Windows ``lib.exe`` is next to it). The root appears complete or
    not at all. It is reused as long as it contains exactly its files, each with its digest: systems delete old
    temporary files one by one, and a changed header would be compiled into units whose keys name the locked one.

    Raises ``LockError`` if the wheels are not those of the lock or have an unknown layout, ``DiskFullError``, and
    ``ToolkitMissingError`` if the unpacked nvcc does not run here.
    """
    if sorted(wheel.name for wheel in wheels) != sorted(file.filename for file in lock.files):
        message = f"these are not the wheels of the lock for CUDA {lock.cuda}: {', '.join(w.name for w in wheels)}"
        raise LockError(message)
    whole = planned(lock, layout)
    stamp = _complete(whole.root, whole.identity) or _make(lock, wheels, whole.root, cc, whole.identity)
    return replace(whole, version=stamp.version, nvcc=replace(whole.nvcc, version=stamp.version))


def planned(lock: ToolkitLock, layout: Layout) -> CudaToolkit:
    """The toolkit that ``provide`` makes of ``lock``, before anything of it is there."""
    identity = lock_digest(lock)
    root = layout.toolkits / f"cuda-{lock.cuda}-{identity[:12]}"
    version = next((file.version for file in lock.files if file.name == COMPILER), "unknown")
    nvcc = Program(path=root / "bin" / _nvcc(lock), version=version, found_via=f"locked wheels, CUDA {lock.cuda}")
    return CudaToolkit(root=root, nvcc=nvcc, version=version, identity=identity, locked=True)


def is_complete(toolkit: CudaToolkit) -> bool:
    """Whether everything of a planned toolkit is there."""
    return _complete(toolkit.root, toolkit.identity) is not None


def without_compiler(lock: ToolkitLock) -> ToolkitLock:
    """The wheels that a finished wheel is read and tried with."""
    return replace(lock, files=tuple(file for file in lock.files if file.name not in COMPILES))


def root_without_compiler(lock: ToolkitLock, layout: Layout) -> Path:
    """The folder of the root that ``provide_without_compiler`` makes."""
    return layout.toolkits / f"cuda-{lock.cuda}-{lock_digest(without_compiler(lock))[:12]}-without-compiler"


def provide_without_compiler(lock: ToolkitLock, wheels: tuple[Path, ...], layout: Layout) -> CudaToolkit:
    """Make a root of the ``wheels`` of ``without_compiler(lock)``, or reuse it; the rest is that of ``lock``.

    Raises ``LockError`` if a wheel has an unknown layout, and ``DiskFullError``.
    """
    whole = planned(lock, layout)
    identity = lock_digest(without_compiler(lock))
    root = root_without_compiler(lock, layout)
    if _complete(root, identity) is None:
        partial = root.with_name(f".{root.name}.partial")
        with disk_full_is_said(root, f"the wheels of CUDA {lock.cuda}"):
            _unpack_all(lock, wheels, partial, root)
            if not platforms.of(lock.platform).uses_dlls:
                repair(partial)
            _finish(partial, root, identity, whole.version)
    return replace(whole, root=root)


def lock_digest(lock: ToolkitLock) -> str:
    """A digest over the names and digests of the locked files, in any order."""
    lines = sorted(f"{file.sha256}  {file.filename}\n" for file in lock.files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def unpack(wheel: Path, root: Path, *, major: str) -> None:
    """Unpack ``nvidia/cu<major>/`` of a wheel to ``root``, and its licences to ``licenses/`` there.

    Raises ``LockError`` for a member that is a link, leads elsewhere, or was already unpacked from another wheel.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                target = _place(member, wheel, major)
                if target is not None:
                    _extract(archive, member, root / target)
    except (zipfile.BadZipFile, FileExistsError) as error:
        raise LockError(f"{wheel.name} cannot be unpacked: {error}") from error


def repair(root: Path) -> None:
    """Make unpacked wheels a toolkit root, except for the driver stub: execute bits, ``lib64``, unversioned names."""
    for folder in PROGRAM_FOLDERS:
        for program in (root / folder).glob("*"):
            if program.is_file():
                program.chmod(0o755)
    (root / "lib64").symlink_to("lib")
    for library in sorted((root / "lib").iterdir()):
        match = _SHARED_LIBRARY.fullmatch(library.name)
        if match:
            (root / "lib" / match["name"]).symlink_to(library.name)


def stub_source() -> str:
    """C source of the driver stub. Like NVIDIA's stub, it only returns an error that says so."""
    return "".join(f"int {name}(void) {{ return {CUDA_ERROR_STUB_LIBRARY}; }}\n" for name in DRIVER_SYMBOLS)


# --------------------------------------------------------------------------------------------------------- making


def _complete(root: Path, identity: str) -> Stamp | None:
    try:
        stamp = jsonio.read(root / STAMP, Stamp)
        files, links = _listing(root, stamp.files)
    except (StepResultError, OSError):
        return None
    changed = {name for name, file in files.items() if file != stamp.files.get(name)}
    digests, expected = ({name: file.sha256 for name, file in each.items()} for each in (files, stamp.files))
    if (stamp.identity, expected, stamp.links) != (identity, digests, links):
        return None
    if changed:  # in time or place only
        stamp = replace(stamp, files=files)
        jsonio.write(root / STAMP, stamp)
    touch(root)
    return stamp


def _make(lock: ToolkitLock, wheels: tuple[Path, ...], root: Path, cc: str, identity: str) -> Stamp:
    partial = root.with_name(f".{root.name}.partial")
    with disk_full_is_said(root, f"the wheels of CUDA {lock.cuda}"):
        _unpack_all(lock, wheels, partial, root)
        if platforms.of(lock.platform).uses_dlls:
            librarian = functools.partial(import_libraries.arguments, Path(cc).with_name("lib.exe"))
            import_libraries.make(partial, lock.cuda.split(".")[0], librarian)
        else:
            repair(partial)
            _compile_stub(partial, cc)
        return _finish(partial, root, identity, _version(partial / "bin" / _nvcc(lock)))


def _finish(partial: Path, root: Path, identity: str, version: str) -> Stamp:
    """Stamp a root that is whole, and give it its name."""
    files, links = _listing(partial, {})
    stamp = Stamp(identity=identity, version=version, files=files, links=links)
    jsonio.write(partial / STAMP, stamp)
    rename(partial, root)
    return stamp


def _unpack_all(lock: ToolkitLock, wheels: tuple[Path, ...], partial: Path, root: Path) -> None:
    """Unpack wheels to ``partial``; what an earlier run left there and at ``root`` is removed."""
    for leftover in (partial, root):
        if leftover.exists():
            shutil.rmtree(leftover)
    partial.mkdir(parents=True)
    for wheel in wheels:
        unpack(wheel, partial, major=lock.cuda.split(".")[0])


def _place(member: zipfile.ZipInfo, wheel: Path, major: str) -> PurePosixPath | None:
    """The path of a member below the root; ``None`` if it is not wanted."""
    name = PurePosixPath(wheelfile.member_name(member))
    if name.is_absolute() or ".." in name.parts or "\\" in str(name):
        raise LockError(f"{wheel.name} cannot be unpacked: {name} leads to a path outside")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise LockError(f"{wheel.name} cannot be unpacked: {name} is a symbolic link")
    if member.is_dir():
        return None
    match name.parts:
        case ("nvidia", folder, *rest) if folder == f"cu{major}" and rest:
            return PurePosixPath(*rest)
        case (info, "licenses", *rest) if info.endswith(".dist-info") and rest:
            return PurePosixPath("licenses", info.removesuffix(".dist-info"), *rest)
    return None


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Write one file with its time in the wheel: newer headers would make Ninja rebuild everything."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as packed, target.open("xb") as file:
        shutil.copyfileobj(packed, file, 1 << 20)
    seconds = calendar.timegm((*member.date_time, 0, 0, 0))
    os.utime(target, (seconds, seconds))
    target.chmod(0o644)


def _compile_stub(root: Path, cc: str) -> None:
    """Compile a driver library to link against, with the real one's run-time name. Same input, same bytes."""
    stubs = root / "lib" / "stubs"
    stubs.mkdir()
    flags = ("-shared", "-fPIC", "-nostdlib", "-O1", "-w", "-Wl,-soname,libcuda.so.1", "-Wl,--build-id=none", "-Wl,-s")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "libcuda.c"
        source.write_text(stub_source(), encoding="utf-8")
        argv = (cc, *flags, "-o", str(stubs / "libcuda.so"), source.name)
        processes.run(processes.Command(argv=argv, cwd=source.parent), timeout=60.0)
    os.utime(stubs / "libcuda.so", (ANY_TIME, ANY_TIME))


def _nvcc(lock: ToolkitLock) -> str:
    return platforms.of(lock.platform).program("nvcc")


def _version(nvcc: Path) -> str:
    remedy = f"make sure that programs can run from {nvcc.parents[2]} (mount option noexec, x86-64 machine)"
    try:
        output = processes.capture(str(nvcc), "--version").output
    except CommandError as error:
        raise ToolkitMissingError(error.message, remedy=remedy) from error
    version = nvcc_version(output)
    if version is None:
        raise ToolkitMissingError(f"{nvcc} does not print its version: {output[-200:]}", remedy=remedy)
    return version


def _listing(root: Path, known: Mapping[str, Verified]) -> tuple[dict[str, Verified], dict[str, str]]:
    """All files with their digests, and all links with their targets. A file that is as it was known is not read."""
    files: dict[str, Verified] = {}
    links: dict[str, str] = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            links[name] = str(path.readlink())
        elif path.is_file() and name != STAMP:
            before = known.get(name) if platforms.HERE.has_change_times else None
            is_same = before is not None and look(path, before.sha256) == before
            files[name] = before if before is not None and is_same else look(path, file_sha256(path))
    return files, links
