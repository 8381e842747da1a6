"""The facts about its own build in a wheel of this project; the loader in the wheel and check_gpu read them, too."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from build_config.errors import PackagingError
from build_config.formats.wheelfile import DAMAGE
from build_config.model import CudaArch
from build_config.system import jsonio

if TYPE_CHECKING:
    from pathlib import Path

FILE = "_cuda_build.json"
"""Next to the package's modules."""
MEMBER = f"llama_cpp/{FILE}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFacts:
    """A CUDA shard: the name of its library, and the architectures that it has code for."""

    name: str
    file: str
    archs: tuple[CudaArch, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildFacts:
    """The facts about a build.

    ``cuda`` is ``major.minor``, ``oldest_driver`` a major version (``580``). ``libraries`` are those of CUDA that the
    shards need, in the order of loading. ``build_command`` contains ``{arch}``.
    """

    version: str
    cuda: str
    oldest_driver: str
    shards: tuple[ShardFacts, ...]
    libraries: tuple[str, ...]
    build_command: str

    @property
    def major(self) -> int:
        """CUDA's major version."""
        return int(self.cuda.partition(".")[0])


def text(facts: BuildFacts) -> str:
    """The content of the file: the same facts give the same bytes."""
    shards = [{"name": one.name, "file": one.file, "archs": [str(arch) for arch in one.archs]} for one in facts.shards]
    # For check_gpu: a shard fits if it has code for one of the GPUs; in earlier wheels it had to have code for all.
    data = {**dataclasses.asdict(facts), "shards": shards, "leaves_out_gpus": True}
    return json.dumps(data, indent=2) + "\n"


def parse(content: bytes) -> BuildFacts:
    """The reverse of ``text``; keys of a later version of this project are ignored. Raises ``PackagingError``."""
    try:
        data = json.loads(content)
        facts = BuildFacts(
            version=str(data["version"]),
            cuda=str(data["cuda"]),
            oldest_driver=str(data["oldest_driver"]),
            shards=tuple(
                ShardFacts(name=str(one["name"]), file=str(one["file"]), archs=tuple(map(CudaArch.parse, one["archs"])))
                for one in data["shards"]
            ),
            libraries=tuple(map(str, data["libraries"])),
            build_command=str(data["build_command"]),
        )
        _ = facts.major  # a number
    except (*jsonio.NOT_JSON, KeyError, TypeError) as error:
        raise PackagingError(f"{MEMBER} is damaged: {type(error).__name__}: {error}") from error
    return facts


def read(wheel: Path) -> BuildFacts | None:
    """The facts in a wheel; ``None`` for a wheel of another project, or if they cannot be read."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            return parse(archive.read(MEMBER))
    except (KeyError, PackagingError, *DAMAGE):
        return None
