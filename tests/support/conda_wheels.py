"""A small wheel with a record, for descriptions of conda packages."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from build_config.formats import build_facts, wheelfile
from build_config.model import CudaArch, Shard, Wheel
from build_config.system.layout import PACKAGE
from build_config.tasks import conda
from tests.support import factories, publishable, wheels

NAMES = conda.read_names(PACKAGE / "data" / "conda.toml")
PLATFORM = "manylinux_2_35_x86_64"
MORE_REQUIREMENTS = (
    "Requires-Python: >=3.8",
    "Requires-Dist: typing-extensions>=4.5.0",
    "Requires-Dist: diskcache>=5.6.1",
    "Requires-Dist: jinja2>=2.11.3",
    'Requires-Dist: cuda-pathfinder<2,>=1.3; python_version >= "3.9"',
)


def members(cuda: str = "13.0", more: Iterable[str] = (), without: str = "\n") -> dict[str, bytes]:
    """A correct wheel's members; ``more`` are lines for METADATA, and those that contain ``without`` are left out."""
    found = wheels.contents({"libllama.so": b"code" * 1000}, PLATFORM)
    metadata = f"{wheels.DIST_INFO}/METADATA"
    lines = [*found[metadata].decode().strip().splitlines(), *MORE_REQUIREMENTS, *more]
    found[metadata] = "\n".join(line for line in lines if without not in line).encode() + b"\n\nThe description.\n"
    found[build_facts.MEMBER] = build_facts.text(factories.build_facts("89", cuda=cuda)).encode()
    return found


def write(folder: Path, contents: dict[str, bytes] | None = None, name: str = wheels.wheel_name(PLATFORM)) -> Wheel:
    folder.mkdir(parents=True, exist_ok=True)
    return wheels.write(folder, contents or members(), name)


def describe(wheel: Wheel, *archs: str) -> conda.CondaPackage:
    """The package of a wheel of ``write``, compiled with GCC 12, with one shard an architecture (``89-real``)."""
    _, blank, _, _ = publishable.make(wheel.path.parent / "record")
    parsed = [CudaArch.parse(arch) for arch in archs]
    shards = tuple(Shard(name=f"sm{arch.number}", archs=(arch,)) for arch in parsed) or (factories.SM89,)
    record = dataclasses.replace(blank, shards=shards, toolchain=(("cxx", "g++ 12.2.0 (g++ on PATH)"),))
    return conda.describe(wheel, wheelfile.read_contents(wheel.path), record, NAMES)
