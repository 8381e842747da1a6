"""The locked sources: unpacked below ``vendor/`` for reading, mirrored to the canonical path for compiling."""

from __future__ import annotations

import filecmp
import hashlib
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.version import Version

from build_config import archives, jsonio
from build_config.errors import SettingsError, StepResultError
from build_config.model import SourceTree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.layout import Layout
    from build_config.model import SourceLock

NESTED = Path("vendor") / "llama.cpp"
"""Where llama.cpp is in the bindings' source distribution."""
STAMP = ".vendored.json"
MODE = 0o644
NEVER_STAGED = frozenset({".git", "__pycache__", ".cache", ".vs", ".idea"})
"""Folders that are no sources, at any depth."""
LEFT_OUT = frozenset({"models", "docs", "media", "benches", "examples", "pocs", "tests", "app", "gguf-py"})
"""Folders at llama.cpp's root that none of our targets reads: 120 MB that would only be compared on every run."""
BUILD_TREE = "CMakeCache.txt"
"""A folder with this file is somebody's build tree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendored:
    """What stands below ``vendor/``, and llama.cpp's commit."""

    sha256: str
    commit: str


def vendor(lock: SourceLock, archive: Path, layout: Layout) -> None:
    """Unpack the verified source distribution: ``vendor/llama.cpp`` and ``vendor/llama-cpp-python`` beside it.

    Nothing is done where they already stand, whole. An interrupted call leaves no half-unpacked tree behind that could
    be taken for a whole one.
    """
    stamp = layout.vendor / STAMP
    present = _vendored(layout)
    if present is not None and present.sha256 == lock.file.sha256:
        return
    stamp.unlink(missing_ok=True)
    layout.vendor.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=layout.vendor, prefix=".unpacking-") as temporary:
        archives.extract_tar(archive, Path(temporary))
        (root,) = Path(temporary).iterdir()
        commit = _commit_of(root / ".git" / "modules" / NESTED)
        shutil.rmtree(root / ".git", ignore_errors=True)
        for name, place in (("llama.cpp", root / NESTED), ("llama-cpp-python", root)):
            target = layout.vendor / name
            shutil.rmtree(target, ignore_errors=True)
            (place / ".git").unlink(missing_ok=True)
            place.rename(target)
    jsonio.write(stamp, Vendored(sha256=lock.file.sha256, commit=commit))


def stage(lock: SourceLock, layout: Layout, *, llama_cpp: Path | None) -> SourceTree:
    """Mirror the sources to the canonical path.

    ``llama_cpp`` is a checkout of the user's that takes the place of the locked llama.cpp; it is only read. Raises
    ``SettingsError`` when it is not a llama.cpp checkout, ``StepResultError`` when the sources were not vendored.
    """
    vendored = _vendored(layout)
    if vendored is None:
        raise StepResultError("the sources are not below vendor/", remedy="nox -s vendor")
    source = layout.vendor / "llama.cpp" if llama_cpp is None else llama_cpp.absolute()
    if not (source / "ggml" / "CMakeLists.txt").is_file():
        raise SettingsError(f"{source} is no llama.cpp checkout: it has no ggml/CMakeLists.txt")
    target = layout.staged / "llama.cpp"
    bindings = layout.staged / "llama-cpp-python"
    return SourceTree(
        version=Version(lock.file.version),
        llama_cpp=target,
        bindings=bindings,
        llama_cpp_digest=mirror(source, target, left_out=LEFT_OUT),
        bindings_digest=mirror(layout.vendor / "llama-cpp-python", bindings),
        locked=llama_cpp is None,
        commit=vendored.commit if llama_cpp is None else _commit_of(_git_folder(source)),
    )


def mirror(source: Path, target: Path, *, left_out: frozenset[str] = frozenset()) -> str:
    """Make ``target`` the same as ``source``, and return the SHA-256 over names and contents.

    Only files whose content differs are written: an unchanged file keeps its time, and Ninja, which goes by it, has
    nothing to do. What vanished from the source is removed.
    """
    total = hashlib.sha256()
    wanted = set()
    for path in _files(source, left_out):
        relative = path.relative_to(source)
        wanted.add(relative)
        copy = target / relative
        total.update(f"{relative.as_posix()}\0{_digest(path)}\n".encode())
        if copy.is_symlink() or not copy.is_file() or not filecmp.cmp(path, copy, shallow=False):
            _replace(path, copy)
    for path in sorted(target.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(target) not in wanted:
            path.unlink()
    return total.hexdigest()


def _files(root: Path, left_out: frozenset[str]) -> Iterator[Path]:
    """The source files below a folder, in an order that no file system decides."""
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        top = here == root
        folders[:] = sorted(
            name
            for name in folders
            if name not in NEVER_STAGED and not (top and name in left_out) and not (here / name / BUILD_TREE).is_file()
        )
        for name in sorted(files):
            if name != ".git":
                yield here / name


def _replace(source: Path, target: Path) -> None:
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.staging")
    shutil.copyfile(source, temporary)
    temporary.chmod(MODE)
    temporary.replace(target)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _vendored(layout: Layout) -> Vendored | None:
    try:
        stamp = jsonio.read(layout.vendor / STAMP, Vendored)
    except StepResultError:
        return None
    whole = all((layout.vendor / name).is_dir() for name in ("llama.cpp", "llama-cpp-python"))
    return stamp if whole else None


def _git_folder(checkout: Path) -> Path:
    """The folder with ``HEAD``: ``.git`` itself, or what a ``.git`` file of a worktree or submodule points to."""
    pointer = checkout / ".git"
    if pointer.is_file():
        return (checkout / pointer.read_text(encoding="utf-8").partition("gitdir:")[2].strip()).resolve()
    return pointer


def _commit_of(git: Path) -> str:
    """The commit that ``HEAD`` names, read without running git; ``unknown`` where that cannot be made out."""
    try:
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
    except OSError:
        return "unknown"
    if not head.startswith("ref: "):
        return head if re.fullmatch(r"[0-9a-f]{40,64}", head) else "unknown"
    reference = head.removeprefix("ref: ")
    common = git
    if (git / "commondir").is_file():
        common = (git / (git / "commondir").read_text(encoding="utf-8").strip()).resolve()
    for place in (git, common):
        loose = place / reference
        if loose.is_file():
            return loose.read_text(encoding="utf-8").strip()
    packed = common / "packed-refs"
    if packed.is_file():
        for line in packed.read_text(encoding="utf-8").splitlines():
            commit, _, name = line.partition(" ")
            if name == reference:
                return commit
    return "unknown"
