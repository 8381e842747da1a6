"""Wheels written by hand: the members of a correct one, which tests corrupt one at a time."""

import base64
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.version import Version

from build_config.formats import cyclonedx, elf, wheelfile
from build_config.model import LibraryPolicy, PlatformName, Shard, Wheel, WheelDeclaration
from build_config.steps.inspection.contents import Subject
from build_config.steps.wheel import repair
from build_config.steps.wheel.sbom import document as sbom_document
from build_config.steps.wheel.sbom import ingredients
from build_config.system.platforms.linux import LINUX
from tests.support import factories

VERSION = Version("0.3.36+cu130.sm89")
DIST_INFO = f"llama_cpp_python-{VERSION}.dist-info"
CHECKOUT = "/home/builder/checkout"


def wheel_name(platform: str = "manylinux_2_17_x86_64") -> str:
    return f"llama_cpp_python-{VERSION}-py3-none-{platform}.whl"


def policy(platform: PlatformName = "linux-x86_64") -> LibraryPolicy:
    return repair.load_policy(factories.layout(Path("/nowhere")), platform)


def declaration(*shards: Shard, max_size: int = 35_000_000) -> WheelDeclaration:
    return WheelDeclaration(version=VERSION, shards=shards, forbidden_paths=(CHECKOUT,), max_size=max_size)


def contents(libraries: Mapping[str, bytes], platform: str = "manylinux_2_17_x86_64") -> dict[str, bytes]:
    """A correct wheel's members, without RECORD. ``libraries`` are put into ``llama_cpp/lib``."""
    licences = {name: f"The licence of {name}.\n".encode() for name in policy().licences}
    metadata = [
        "Metadata-Version: 2.2",
        "Name: llama-cpp-python",
        f"Version: {VERSION}",
        *(f"License-File: {name}" for name in licences),
        "Requires-Dist: numpy>=1.20.0",
        "Requires-Dist: nvidia-cuda-runtime>=13.0,<14",
        "Requires-Dist: nvidia-cublas>=13.0,<14",
        'Requires-Dist: uvicorn>=0.22.0; extra == "server"',
    ]
    wheel = ["Wheel-Version: 1.0", "Generator: by hand", "Root-Is-Purelib: false", f"Tag: py3-none-{platform}"]
    return {
        "llama_cpp/__init__.py": b"from .llama_cpp import *\n",
        **{f"llama_cpp/lib/{name}": data for name, data in libraries.items()},
        f"{DIST_INFO}/METADATA": "\n".join([*metadata, "", ""]).encode(),
        f"{DIST_INFO}/WHEEL": "\n".join([*wheel, ""]).encode(),
        **{f"{DIST_INFO}/licenses/{name}": text for name, text in licences.items()},
    }


def library(*needed: str, **changes: Any) -> elf.ElfLibrary:
    facts = {"soname": None, "search_paths": ("$ORIGIN",), "versions": (), "leftovers": (), "has_build_id": False}
    return elf.ElfLibrary(needed=needed, **{**facts, **changes})


def subject(
    changes: Mapping[str, bytes] | None = None,
    *,
    tags: tuple[str, ...] = ("py3-none-manylinux_2_17_x86_64",),
    size: int = 1000,
    **facts: Any,
) -> Subject:
    """A correct wheel as inspection sees it, without libraries. ``changes`` are members, ``facts`` other fields."""
    known = {
        "platform": LINUX,
        "declaration": declaration(factories.SM89),
        "policy": policy(),
        "contents": {**contents({}), **(changes or {})},
        "libraries": {},
        "cuobjdump": None,
        "objdump": "objdump",
        "folder": Path("/nowhere"),
    }
    wheel = Wheel(path=Path(wheel_name()), version=VERSION, tags=tags, sha256="0" * 64, size=size)
    return Subject(wheel=wheel, **{**known, **facts})


def listed(members: Mapping[str, bytes], *shards: Shard) -> dict[str, bytes]:
    """The members and a matching SBOM."""
    known = ingredients.Ingredients(version=str(VERSION), cuda="13.0.88", shards=shards, parts=(), vendored=())
    document = sbom_document.describe(known, members, wheel_name())
    return {**members, f"{DIST_INFO}/{cyclonedx.MEMBER}": document.encode()}


def record(members: Mapping[str, bytes]) -> bytes:
    """RECORD, written without the code under test."""
    lines = []
    for name, data in members.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        lines.append(f"{name},sha256={digest},{len(data)}")
    return "\n".join([*lines, f"{DIST_INFO}/RECORD,,", ""]).encode()


def write(folder: Path, members: Mapping[str, bytes], name: str = "") -> Wheel:
    """Write the members, and a RECORD if there is none among them."""
    path = folder / (name or wheel_name())
    record_name = f"{DIST_INFO}/RECORD"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in {record_name: record(members), **members}.items():
            archive.writestr(member, data)
    return wheelfile.read(path)
