"""The modules that this project adds to upstream's package, copied next to one another as in a wheel."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from build_config.steps.wheel import assemble
from tests.support import factories

if TYPE_CHECKING:
    from pathlib import Path


def copy_to(package: Path) -> None:
    package.mkdir(parents=True, exist_ok=True)
    for name, source in assemble.own_modules("linux-x86_64", factories.layout(package)).items():
        shutil.copyfile(source, package / name)
