"""Unpack the locked sources below ``vendor/`` for reading; mirror them to the canonical path for compiling."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.version import Version

from build_config.errors import LockError, SettingsError, StepResultError
from build_config.formats import tar
from build_config.model import SourceTree
from build_config.system import git, jsonio
from build_config.system.files import disk_full_is_said, file_sha256, listing_sha256, rename

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.model import SourceLock
    from build_config.system.layout import Layout

LLAMA_CPP = "llama.cpp"
BINDINGS = "llama-cpp-python"
NESTED = Path("vendor") / LLAMA_CPP
"""The folder of llama.cpp in the bindings' source distribution."""
STAMP = ".vendored.json"
MODE = 0o644

NO_SOURCES = frozenset({".git", "__pycache__", ".cache", ".vs", ".idea"})
"""Names that are not sources, at any depth. In a submodule or worktree ``.git`` is a file."""
BUILD_TREE = "CMakeCache.txt"
"""A folder with this file is somebody's build tree."""
MODEL_SUFFIX = ".gguf"
"""People keep models of many gigabytes in their checkouts."""

LEFT_OUT = ("app", "benches", "docs", "examples", "gguf-py", "media", "models", "pocs", "tests", "tools/ui")
"""Folders of llama.cpp that none of our targets reads: 130 MB of test vocabularies, documents, pictures and programs.

A change in them must not cause a compilation, either.
"""
BINDINGS_LEFT_OUT = ("docker", "docs", "examples", "scripts", "tests", "vendor")
"""Folders of the bindings that do not enter the wheel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendored:
    """The contents of ``vendor/``: the digest of the archive, llama.cpp's commit, and the digests of both trees."""

    sha256: str
    commit: str
    llama_cpp_digest: str
    bindings_digest: str


def vendor(lock: SourceLock, archive: Path, layout: Layout) -> None:
    """Unpack the verified source distribution to ``vendor/llama.cpp`` and ``vendor/llama-cpp-python``.

    Does nothing if both are already there. An interrupted call leaves no partial tree that could be taken for a
    complete one. Raises ``LockError`` if the archive has another layout, ``DiskFullError``.
    """
    present = _vendored(layout)
    if present is not None and present.sha256 == lock.file.sha256:
        return
    with disk_full_is_said(layout.vendor, "the sources"):
        layout.vendor.mkdir(parents=True, exist_ok=True)
        (layout.vendor / STAMP).unlink(missing_ok=True)  # until it is written again, the trees are incomplete
        for leftover in layout.vendor.glob(".unpacking-*"):
            shutil.rmtree(leftover)
        with tempfile.TemporaryDirectory(dir=layout.vendor, prefix=".unpacking-") as temporary:
            tar.extract_tar(archive, Path(temporary))
            root = _root_of(Path(temporary), archive.name)
            commit = git.commit(root / NESTED)
            for name, place in ((LLAMA_CPP, root / NESTED), (BINDINGS, root)):
                _remove(place / ".git")
                _remove(layout.vendor / name)
                rename(place, layout.vendor / name)
        stamp = Vendored(
            sha256=lock.file.sha256,
            commit=commit,
            llama_cpp_digest=_tree_digest(_listing(layout.vendor / LLAMA_CPP, LEFT_OUT)),
            bindings_digest=_tree_digest(_listing(layout.vendor / BINDINGS, BINDINGS_LEFT_OUT)),
        )
        jsonio.write(layout.vendor / STAMP, stamp)


def stage(lock: SourceLock, layout: Layout, *, llama_cpp: Path | None) -> SourceTree:
    """Mirror the sources to the canonical path.

    ``llama_cpp`` is the user's own checkout, which replaces the locked llama.cpp; it is only read. Raises
    ``SettingsError`` if it is not a llama.cpp checkout, ``StepResultError`` if the locked sources were not vendored,
    ``LockError`` if they were edited since, ``DiskFullError``.
    """
    vendored = _vendored(layout)
    if vendored is None or vendored.sha256 != lock.file.sha256:
        raise StepResultError("the locked sources are not below vendor/", remedy="nox -s vendor")
    source = layout.vendor / LLAMA_CPP if llama_cpp is None else _checkout(llama_cpp, layout)
    tree = SourceTree(
        version=Version(lock.file.version),
        llama_cpp=layout.staged / LLAMA_CPP,
        bindings=layout.staged / BINDINGS,
        llama_cpp_digest=mirror(source, layout.staged / LLAMA_CPP, left_out=LEFT_OUT),
        bindings_digest=mirror(layout.vendor / BINDINGS, layout.staged / BINDINGS, left_out=BINDINGS_LEFT_OUT),
        locked=llama_cpp is None,
        commit=vendored.commit if llama_cpp is None else git.commit(source),
    )
    if tree.locked and tree.llama_cpp_digest != vendored.llama_cpp_digest:
        raise _edited(layout.vendor / LLAMA_CPP, "; to build with your changes, copy it and pass --llama-cpp COPY")
    if tree.bindings_digest != vendored.bindings_digest:
        raise _edited(layout.vendor / BINDINGS, "")
    return tree


def mirror(source: Path, target: Path, *, left_out: tuple[str, ...] = ()) -> str:
    """Make ``target`` the same as ``source`` without ``left_out``, and return the SHA-256 over names and contents.

    Only files whose content differs are written: an unchanged file keeps its time, so Ninja does not rebuild it. Files
    that are no longer in the source are removed. ``left_out`` are folders relative to ``source``.
    """
    with disk_full_is_said(target, "the sources"):
        listing = _listing(source, left_out)
        _remove_others(target, frozenset(listing))
        for name, digest in listing.items():
            copy = target / name
            if not copy.is_file() or file_sha256(copy) != digest:
                _replace(source / name, copy)
    return _tree_digest(listing)


# ------------------------------------------------------------------------------------------------------ comparing


def _listing(root: Path, left_out: tuple[str, ...]) -> dict[str, str]:
    """Map the relative name of each source file to its SHA-256, in the same order on every file system."""
    return {path.relative_to(root).as_posix(): file_sha256(path) for path in sorted(_files(root, left_out))}


def _files(root: Path, left_out: tuple[str, ...]) -> Iterator[Path]:
    skipped = {root / name for name in left_out}
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        folders[:] = [
            name
            for name in folders
            if name not in NO_SOURCES and here / name not in skipped and not (here / name / BUILD_TREE).is_file()
        ]
        for name in files:
            path = here / name
            if name not in NO_SOURCES and path.suffix != MODEL_SUFFIX and path.is_file():
                yield path


def _tree_digest(listing: dict[str, str]) -> str:
    return listing_sha256(sorted(listing.items()))


# -------------------------------------------------------------------------------------------------------- writing


def _remove_others(target: Path, wanted: frozenset[str]) -> None:
    """Remove unwanted files, and everything in the place of a wanted file or of its folder."""
    if target.is_symlink():
        target.unlink()
    for folder, folders, files in os.walk(target, topdown=False):
        here = Path(folder)
        for name in (*files, *folders):
            path = here / name
            if path.is_symlink() or (name in files and path.relative_to(target).as_posix() not in wanted):
                path.unlink()
        if here != target and not any(here.iterdir()):
            here.rmdir()


def _replace(source: Path, target: Path) -> None:
    """Write a file completely or not at all. It is newer than everything that was built from the old one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.staging")
    shutil.copyfile(source, temporary)
    temporary.chmod(MODE)
    rename(temporary, target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------------------- present trees


def _vendored(layout: Layout) -> Vendored | None:
    try:
        stamp = jsonio.read(layout.vendor / STAMP, Vendored)
    except StepResultError:
        return None
    return stamp if all((layout.vendor / name).is_dir() for name in (LLAMA_CPP, BINDINGS)) else None


def _root_of(unpacked: Path, archive: str) -> Path:
    """The one folder at the top of a source distribution."""
    tops = sorted(unpacked.iterdir())
    if len(tops) != 1 or not _is_llama_cpp(tops[0] / NESTED):
        message = f"{archive} does not contain llama.cpp at {NESTED.as_posix()}"
        raise LockError(message, remedy="lock a release that does: git checkout build_config/data/locks")
    return tops[0]


def _checkout(path: Path, layout: Layout) -> Path:
    """The user's own llama.cpp checkout, safe to mirror from."""
    source = path.resolve()
    staged = layout.staged.resolve()
    if not _is_llama_cpp(source):
        message = f"{path} is not a llama.cpp checkout: it has no ggml/CMakeLists.txt"
        raise SettingsError(message, remedy="pass the folder with llama.cpp's own CMakeLists.txt")
    if source.is_relative_to(staged) or staged.is_relative_to(source):
        raise SettingsError(f"{path} is where this project stages its sources", remedy="pass a checkout elsewhere")
    return source


def _is_llama_cpp(folder: Path) -> bool:
    return (folder / "ggml" / "CMakeLists.txt").is_file()


def _edited(folder: Path, alternative: str) -> LockError:
    return LockError(
        f"{folder} is not as it was unpacked: files were edited, added or removed",
        remedy=f"remove that folder and run again{alternative}",
    )
