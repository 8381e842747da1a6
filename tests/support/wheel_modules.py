"""The modules that this project adds to upstream's package, copied next to one another as in a wheel."""

import importlib
import logging
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from build_config.steps.wheel import assemble
from tests.support import factories

PACKAGE = "modules_of_a_wheel"


def copy_to(package: Path) -> None:
    package.mkdir(parents=True, exist_ok=True)
    for name, source in assemble.own_modules("linux-x86_64", factories.layout(package)).items():
        shutil.copyfile(source, package / name)


def loader(site: Path) -> ModuleType:
    """Import the loader outside a wheel: there is nothing that it could load, and that must not raise."""
    copy_to(site / PACKAGE)
    (site / PACKAGE / "__init__.py").touch()
    logging.disable()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        module = importlib.import_module(f"{PACKAGE}._cuda_loader")
    logging.disable(logging.NOTSET)
    return module
