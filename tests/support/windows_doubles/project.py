"""A checkout of this project with the miniature's locked sources, in which ordinary commands build the miniature."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import tomli_w

from build_config.model import DISTRIBUTION
from build_config.steps.wheel.assemble import LICENCES
from build_config.system.files import file_sha256
from build_config.system.layout import PACKAGE

HERE = Path(__file__).parent
MINIATURE = HERE.parents[1] / "integration" / "miniature"
COPIED = ("build_config", "check_gpu", "pyproject.toml", "README.md")
VERSION = "0.3.36"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TEXTS = ("README.md", "LICENSE.md")


def copy_checkout(folder: Path, sdist: Path) -> None:
    """Copy this project into a new ``folder``; its lock of the sources names ``sdist``."""
    folder.mkdir(parents=True)
    for name in COPIED:
        source = PACKAGE.parent / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, folder / name)
    locked = {
        "name": DISTRIBUTION,
        "version": VERSION,
        "filename": sdist.name,
        "sha256": file_sha256(sdist),
        "size": sdist.stat().st_size,
    }
    lock = folder / "build_config" / "data" / "locks" / f"{DISTRIBUTION}.toml"
    lock.write_text(tomli_w.dumps(locked), encoding="utf-8")


def make_sdist(folder: Path) -> Path:
    """Pack the doubles of the bindings with the miniature as their llama.cpp, as upstream's file is packed."""
    root = folder / f"llama_cpp_python-{VERSION}"
    shutil.copytree(HERE / "bindings", root, ignore=shutil.ignore_patterns("__pycache__"))
    for name in TEXTS:
        (root / name).write_text("A test double of upstream's file.\n", encoding="utf-8")
    copy_miniature(root / "vendor" / "llama.cpp")
    sdist = folder / f"{root.name}.tar.gz"
    with tarfile.open(sdist, "w:gz") as archive:
        archive.add(root, root.name)
    return sdist


def copy_miniature(folder: Path) -> None:
    """Copy the miniature as somebody's own checkout: with git's files, and the licences that a wheel needs."""
    shutil.copytree(MINIATURE, folder)
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text(f"{COMMIT}\n", encoding="ascii")
    for _, name in LICENCES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("A test double of a licence.\n", encoding="utf-8")
