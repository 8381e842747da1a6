"""The miniature of llama.cpp, staged in a test's own work root and built by the real pipeline."""

import dataclasses
import os
import re
from pathlib import Path

from build_config.model import BuildUnit, CudaToolkit, SourceTree, Toolchain
from build_config.steps import sources, toolchain
from build_config.steps.units import compilation, settings
from build_config.steps.units.spec import UnitSpec, core_spec, shard_spec
from build_config.system.console import Console
from build_config.system.layout import PACKAGE, Layout
from tests.support import factories

MINIATURE = Path(__file__).parents[1] / "integration" / "miniature"
QUIET = Console(terminal=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """A work root with the staged miniature."""

    layout: Layout
    chain: Toolchain
    tree: SourceTree

    def specs(self, *, variants: tuple[str, ...] = ("x64", "haswell")) -> tuple[UnitSpec, UnitSpec]:
        shipped = settings.read(PACKAGE / "data" / "variants.toml")
        config = dataclasses.replace(shipped, core=dataclasses.replace(shipped.core, cpu_variants=variants))
        project = sources.mirror(PACKAGE / "wheel_project", self.layout.staged / "wheel_project")
        digest = sources.mirror(MINIATURE, self.tree.llama_cpp) if not self.edited() else "edited"
        tree = dataclasses.replace(self.tree, llama_cpp_digest=digest)
        return (
            core_spec(config, tree, self.layout, self.chain, project),
            shard_spec(config, tree, self.layout, self.chain, project, factories.SM89),
        )

    def edited(self) -> bool:
        return (self.tree.llama_cpp / "edited").exists()

    def compiled(self, unit: str) -> int:
        """The number of steps that the last build ran for a unit; 0 if it took the unit from the store."""
        log = self.layout.logs / f"build-{unit}.log"
        return len(re.findall(r"^\[\d+/\d+\] ", log.read_text(), re.MULTILINE)) if log.is_file() else 0

    def build(self, *specs: UnitSpec, jobs: int = 2) -> tuple[BuildUnit, ...]:
        for log in self.layout.logs.glob("build-*.log"):
            log.unlink()
        return compilation.build_units(specs or self.specs(), self.chain, self.layout, QUIET, jobs=jobs)


def workshop(root: Path, toolkit: CudaToolkit, launcher: str = "none") -> Workshop:
    layout = Layout(checkout=PACKAGE.parent, work_root=root)
    root.mkdir(exist_ok=True)
    chain = toolchain.assemble(
        toolkit,
        toolchain.host_for_installed(toolkit, os.environ),
        environ=os.environ,
        launcher="sccache" if launcher == "sccache" else "none",
        layout=layout,
    )
    return Workshop(layout=layout, chain=chain, tree=factories.source_tree(layout.staged))
