"""A channel that replaces conda-forge: the requirements of our package, with conda-forge's names and versions.

Each is a real conda package, empty or with a test's content. Requirements are shortened to those that matter. Sources
of names and versions: the pages ``https://anaconda.org/conda-forge/NAME/files`` and the recipes
``https://github.com/conda-forge/NAME-feedstock/blob/main/recipe/meta.yaml``, read 2026-11-25.
"""

import asyncio
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rattler import ChannelPriority, Gateway, PackageName, RepoDataRecord, Version, solve
from rattler.index import index_fs
from rattler.package import BuildString
from rattler.virtual_package import GenericVirtualPackage
from rattler_build import assemble_package

GLIBC = "__glibc >=2.17,<3.0.a0"


@dataclass(frozen=True, slots=True)
class Stub:
    """One package. ``noarch`` determines its folder; ``depends`` and ``constrains`` are as in its recipe."""

    name: str
    version: str
    build: str
    depends: tuple[str, ...] = ()
    constrains: tuple[str, ...] = ()
    noarch: bool = False


def cuda_version(version: str, build: str) -> Stub:
    """The recipe's ``run_constrained``: the driver, if there is one, must support this major release."""
    return Stub(
        "cuda-version", version, build, constrains=(f"__cuda >={version.split('.', maxsplit=1)[0]}",), noarch=True
    )


def of_cuda(name: str, version: str, build: str, cuda: str, *depends: str) -> Stub:
    """Each of CUDA's libraries is bound to one ``cuda-version``: ``pin_compatible("cuda-version", max_pin="x.x")``."""
    major, minor = map(int, cuda.split("."))
    bound = f"cuda-version >={cuda},<{major}.{minor + 1}.0a0"
    return Stub(name, version, build, (bound, "libgcc >=14", "libstdcxx >=14", GLIBC, *depends))


STUBS = (
    Stub("python", "3.14.4", "h_cp314", (GLIBC, "libgcc >=14")),
    Stub("python", platform.python_version(), "h_cpython", (GLIBC, "libgcc >=14")),
    Stub("python", "3.8.18", "hd12c33a_0_cpython", (GLIBC,)),
    Stub("libgcc", "15.2.0", "h_18"),
    Stub("libgcc", "11.4.0", "h_1"),
    Stub("libstdcxx", "15.2.0", "h934c35e_18", ("libgcc 15.2.0",)),
    Stub("libstdcxx", "14.2.0", "h8f9b012_2", ("libgcc >=14",)),
    Stub("numpy", "2.3.1", "h_0", ("python >=3.10", "libstdcxx >=13", GLIBC)),
    Stub("numpy", "1.19.5", "h_0", ("python >=3.8,<3.9", GLIBC)),
    Stub("jinja2", "3.1.6", "pyh_0", ("markupsafe >=2.0", "python >=3.10"), noarch=True),
    Stub("markupsafe", "3.0.3", "h_0", ("python >=3.10", GLIBC)),
    Stub("diskcache", "5.6.3", "pyhd8ed1ab_1", ("python >=3.9",), noarch=True),
    Stub("typing-extensions", "4.15.0", "h_0", ("typing_extensions 4.15.0",), noarch=True),
    Stub("typing_extensions", "4.15.0", "pyhcf101f3_0", ("python >=3.10",), noarch=True),
    Stub("cuda-pathfinder", "1.8.3", "pyhc364b38_0", ("python >=3.10",), noarch=True),
    cuda_version("13.3", "hcbadf70_3"),
    cuda_version("13.0", "hc7b4dd1_3"),
    cuda_version("12.9", "h4f385c5_3"),
    of_cuda("cuda-cudart", "13.3.29", "h_0", "13.3"),
    of_cuda("cuda-cudart", "13.0.96", "h_0", "13.0"),
    of_cuda("cuda-cudart", "12.9.79", "h_0", "12.9"),
    of_cuda("cuda-nvrtc", "13.3.33", "h_0", "13.3"),
    of_cuda("cuda-nvrtc", "13.0.88", "hecca717_0", "13.0"),
    of_cuda("cuda-nvrtc", "12.9.86", "h_0", "12.9"),
    of_cuda("libcublas", "13.5.1.27", "h676940d_0", "13.3", "cuda-nvrtc"),
    of_cuda("libcublas", "13.1.0.3", "h676940d_0", "13.0", "cuda-nvrtc"),
    of_cuda("libcublas", "12.9.1.4", "h676940d_1", "12.9", "cuda-nvrtc"),
)


def make(channel: Path, contents: Mapping[str, Path] | None = None) -> Path:
    """Write the channel. ``contents`` are folders to put into packages, by the packages' names."""
    for subdir in ("linux-64", "noarch"):
        (channel / subdir).mkdir(parents=True)
    for stub in STUBS:
        with tempfile.TemporaryDirectory() as empty:
            assemble_package(
                stub.name,
                stub.version,
                "noarch" if stub.noarch else "linux-64",
                stub.build,
                channel / ("noarch" if stub.noarch else "linux-64"),
                files_dir=(contents or {}).get(stub.name, empty),
                depends=stub.depends,
                constrains=stub.constrains,
                noarch="generic" if stub.noarch else None,
                detect_prefix=False,
            )
    asyncio.run(index_fs(channel, write_zst=False, write_shards=False))
    return channel


def machine(**virtual: str) -> list[GenericVirtualPackage]:
    """The virtual packages of a machine: ``cuda="13.0"`` for the driver, ``cuda_arch="8.9"`` for the GPU, ``glibc``."""
    versions = {"unix": "0", "linux": "6.1", "glibc": "2.36", "archspec": "1", **virtual}
    return [
        GenericVirtualPackage(PackageName(f"__{name}"), Version(version), BuildString("0"))
        for name, version in versions.items()
    ]


def solved(channels: list[Path], *specs: str, on: list[GenericVirtualPackage]) -> dict[str, RepoDataRecord]:
    """The packages to install, by name. Raises ``SolverError`` if there is no solution."""
    records = asyncio.run(
        solve(
            [channel.as_uri() for channel in channels],
            specs,
            gateway=Gateway(cache_dir=channels[0].parent / "cache"),
            platforms=["linux-64", "noarch"],
            virtual_packages=on,
            channel_priority=ChannelPriority.Strict,
        )
    )
    return {record.name.normalized: record for record in records}
