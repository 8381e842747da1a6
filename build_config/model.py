"""Frozen types that pass between the steps: standard library and ``packaging`` only."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.version import Version

DISTRIBUTION = "llama-cpp-python"
"""The normalized name of the project that is built."""
OLDEST_PYTHON = (3, 11)
"""The oldest Python that this project supports; the wheels have upstream's own limit."""

PlatformName = Literal["linux-x86_64", "win-amd64"]

_ARCH = re.compile(r"(?P<number>[1-9][0-9]{1,2})(?P<suffix>[af]?)(?:-(?P<kind>real|virtual))?")


# --------------------------------------------------------------------------------------------------------- locks


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedFile:
    """One file of a package index, identified by digest: nothing else is ever unpacked.

    ``size`` is in bytes. ``sha256`` is 64 lower-case hexadecimal digits.
    """

    name: str
    version: str
    filename: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolkitLock:
    """A CUDA toolkit as NVIDIA's wheels for one platform. ``cuda`` is ``major.minor``."""

    cuda: str
    platform: PlatformName
    files: tuple[LockedFile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLock:
    """llama-cpp-python's source distribution, which contains llama.cpp."""

    file: LockedFile


# ------------------------------------------------------------------------------------------------- architectures


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class CudaArch:
    """One entry of ``CMAKE_CUDA_ARCHITECTURES``: ``89-real``, ``90-virtual``, ``120a-real``.

    ``number`` is ten times major plus minor of the compute capability. ``suffix`` is ``a`` (this architecture only),
    ``f`` (this family only) or empty. ``kind`` is ``real`` (a cubin) or ``virtual`` (PTX).
    """

    number: int
    suffix: Literal["", "a", "f"] = ""
    kind: Literal["real", "virtual"] = "real"

    @classmethod
    def parse(cls, text: str) -> CudaArch:
        """Read ``89``, ``89-real``, ``120a-real`` or ``90-virtual``; a bare number means ``-real``.

        Raises ``ValueError`` for anything else.
        """
        match = _ARCH.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not a CUDA architecture")
        suffix: Literal["", "a", "f"] = "a" if match["suffix"] == "a" else "f" if match["suffix"] == "f" else ""
        kind: Literal["real", "virtual"] = "virtual" if match["kind"] == "virtual" else "real"
        return cls(number=int(match["number"]), suffix=suffix, kind=kind)

    @property
    def capability(self) -> str:
        """The compute capability: ``8.9``."""
        return f"{self.number // 10}.{self.number % 10}"

    @property
    def name(self) -> str:
        """The name nvcc and cuobjdump use: ``sm_89`` for a cubin, ``compute_89`` for PTX."""
        return f"{'sm' if self.kind == 'real' else 'compute'}_{self.number}{self.suffix}"

    def __str__(self) -> str:
        """CMake's spelling."""
        return f"{self.number}{self.suffix}-{self.kind}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One CUDA backend library: ``libggml-cuda-<name>.so`` compiled for ``archs``."""

    name: str
    archs: tuple[CudaArch, ...]

    @property
    def cmake_architectures(self) -> str:
        """The value of ``CMAKE_CUDA_ARCHITECTURES``."""
        return ";".join(str(arch) for arch in self.archs)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchSelection:
    """The result of resolving ``--arch``. ``notice`` tells the user about a choice made for them, if there was one."""

    shards: tuple[Shard, ...]
    portable: bool = False
    notice: str | None = None


# ----------------------------------------------------------------------------------------------------- inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceTree:
    """The staged sources at the canonical path.

    ``llama_cpp`` is llama.cpp's root, ``bindings`` the root of llama-cpp-python (with ``llama_cpp/`` in it).
    The digests are over names and contents (hexadecimal SHA-256). ``locked`` is false if llama.cpp is a checkout of
    the user's. ``commit`` is llama.cpp's commit, or ``unknown``.
    """

    version: Version
    llama_cpp: Path
    bindings: Path
    llama_cpp_digest: str
    bindings_digest: str
    locked: bool
    commit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """An executable: where it is, its version, and how it was found (for messages and for the record)."""

    path: Path
    version: str
    found_via: str

    @property
    def described(self) -> str:
        """``g++ 12.2.0 (g++ on PATH)``."""
        return f"{self.path.name} {self.version} ({self.found_via})"


RANDOM_SEED_SINCE = (12, 9)
"""The first CUDA release whose nvcc knows ``--frandom-seed``."""
NO_RANDOM_SEED = (
    "NOT reproducible byte for byte: before CUDA 12.9 nvcc has no --frandom-seed, so names in device code differ in"
    " every build"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaToolkit:
    """A CUDA toolkit root with ``bin/nvcc``.

    ``version`` is nvcc's (``13.0.88``). ``identity`` identifies its bytes: the digest of the lock for the locked
    toolkit, of the compiler's programs and headers for an installed one. ``headers`` is the folder with
    ``cuda_runtime_api.h`` if that is not ``include`` below the root. ``programs`` are those that nvcc calls by name
    outside its own folder, so PATH must lead to them: distributions split toolkits like that.
    """

    root: Path
    nvcc: Program
    version: str
    identity: str
    locked: bool
    headers: Path | None = None
    programs: tuple[Path, ...] = ()

    @property
    def include(self) -> Path:
        """The folder of the headers."""
        return self.headers or self.root / "include"

    @property
    def release(self) -> str:
        """``major.minor``: ``13.0``."""
        major, minor = self.version.split(".")[:2]
        return f"{major}.{minor}"

    @property
    def has_random_seed(self) -> bool:
        """Whether nvcc knows ``--frandom-seed``: without it no two builds give the same bytes."""
        return tuple(int(part) for part in self.release.split(".")) >= RANDOM_SEED_SINCE

    @property
    def tag(self) -> str:
        """The usual short name: ``cu130``."""
        return "cu" + self.release.replace(".", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCompiler:
    """The C and C++ compiler drivers: two programs of GCC, or Microsoft's single program twice.

    ``identity`` is a digest over the compiler proper, assembler and linker in use, ``binutils`` the version that
    assembler and linker report. ``system`` lists name and version of each system library that enters the build; it is
    empty if that is only the C library of this process. ``environment`` holds the variables that the compiler needs.
    """

    cc: Program
    cxx: Program
    identity: str
    binutils: str
    system: tuple[tuple[str, str], ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolchain:
    """All programs that compile and link."""

    cuda: CudaToolkit
    host: HostCompiler
    cmake: Program
    ninja: Program
    launcher: Program | None
    cuobjdump: Program | None
    platform: PlatformName = "linux-x86_64"


# ------------------------------------------------------------------------------------------------------- units


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitKey:
    """The identity of a build unit: ``digest`` over ``inputs``, sorted name-value pairs."""

    digest: str
    inputs: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, inputs: dict[str, str]) -> UnitKey:
        """Make the key of name-value pairs; their order does not matter."""
        pairs = tuple(sorted(inputs.items()))
        return cls(digest=hashlib.sha256(json.dumps(pairs).encode()).hexdigest(), inputs=pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltFile:
    """One file of a unit or of a wheel: name relative to its folder, size in bytes, digest."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemHeaders:
    """The headers that a unit was compiled with and that no lock covers.

    ``sha256`` is over their paths and contents. ``unexpected`` are those that belong neither to the compiler nor to the
    C library nor to the kernel.
    """

    number: int
    sha256: str
    unexpected: tuple[Path, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildUnit:
    """A finished unit in the store.

    ``network`` says which network its compilers could reach. ``launcher`` is the object cache that they were called
    through. ``headers`` and ``launcher`` are ``None`` if an earlier version of this project built the unit. ``origin``
    says where it came from, and whose key vouches for it; ``None`` if it was compiled for this store.
    """

    name: str
    key: UnitKey
    folder: Path
    files: tuple[BuiltFile, ...]
    shard: Shard | None
    network: str
    headers: SystemHeaders | None = None
    launcher: str | None = None
    origin: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledUnits:
    """Finished units, their sources and toolchain. ``project_digest`` is that of this project's part of the wheel."""

    tree: SourceTree
    toolchain: Toolchain
    shards: tuple[Shard, ...]
    units: tuple[BuildUnit, ...]
    project_digest: str


# ------------------------------------------------------------------------------------------------------- wheel


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A wheel file. ``tags`` are the compressed tag sets of its name. ``size`` is in bytes."""

    path: Path
    version: Version
    tags: tuple[str, ...]
    sha256: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalLibrary:
    """Libraries that a wheel needs but does not contain.

    ``soname`` may contain ``*``. ``reason`` says why they stay outside. The wheel must require one of the distributions
    in ``providers``, which is empty if the machine itself provides the library.
    """

    soname: str
    reason: str
    providers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryPolicy:
    """The allowed origin of each library that a wheel needs, and the licences that the wheel contains.

    ``vendored`` are sonames that are copied from the build machine, ``system`` those that every machine with the
    wheel's manylinux tag has. ``licences`` are names of files below ``.dist-info/licenses/``.
    """

    external: tuple[ExternalLibrary, ...]
    vendored: tuple[str, ...]
    system: tuple[str, ...]
    licences: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelDeclaration:
    """What a wheel claims to be; inspection compares the file with it."""

    version: Version
    shards: tuple[Shard, ...]
    forbidden_paths: tuple[str, ...]
    max_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuDevice:
    """A GPU. ``memory`` is in bytes, ``capability`` like ``8.9``."""

    index: int
    name: str
    capability: str
    memory: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """The NVIDIA driver: its version and the newest CUDA it runs (``13.0``)."""

    version: str
    cuda: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The machine of a measurement or a validation, without host name and paths."""

    system: str
    cpu: str
    cores: int
    glibc: str
    driver: Driver | None
    gpus: tuple[GpuDevice, ...]
