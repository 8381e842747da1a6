import io
import os
import tarfile
from pathlib import Path

import pytest

from build_config.errors import LockError, SettingsError, StepResultError
from build_config.model import LockedFile, SourceLock, SourceTree
from build_config.steps import sources
from build_config.system import files
from build_config.system.layout import Layout

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOP = "llama_cpp_python-1.2.3"
SDIST = {
    "pyproject.toml": "[project]",
    "llama_cpp/__init__.py": "import ctypes",
    "tests/test_llama.py": "not for the wheel",
    ".git/config": "[core]",
    ".git/modules/vendor/llama.cpp/HEAD": COMMIT + "\n",
    "vendor/llama.cpp/.git": "gitdir: ../../.git/modules/vendor/llama.cpp\n",
    "vendor/llama.cpp/CMakeLists.txt": "project(llama.cpp)",
    "vendor/llama.cpp/ggml/CMakeLists.txt": "project(ggml)",
    "vendor/llama.cpp/ggml/src/ggml.c": "int ggml;",
    "vendor/llama.cpp/src/models/llama.cpp": "a source file, in a folder called like the one that is left out",
    "vendor/llama.cpp/models/vocab.gguf": "75 MB",
    "vendor/llama.cpp/tools/mtmd/mtmd.cpp": "int mtmd;",
    "vendor/llama.cpp/tools/ui/page.html": "8 MB",
}


def locked(digest: str = "a" * 64) -> SourceLock:
    name = f"{TOP}.tar.gz"
    return SourceLock(file=LockedFile(name="llama-cpp-python", version="1.2.3", filename=name, sha256=digest, size=1))


def make_tar(path: Path, members: dict[str, str], kind: bytes = tarfile.REGTYPE) -> Path:
    """``kind`` is that of members without a text."""
    with tarfile.open(path, "w:gz") as tar:
        for name, text in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            member.type, member.linkname = (tarfile.REGTYPE, "") if text else (kind, "../../odd")
            tar.addfile(member, io.BytesIO(text.encode()))
    return path


@pytest.fixture(name="archive")
def _archive(tmp_path: Path) -> Path:
    return make_tar(tmp_path / "sdist.tar.gz", {f"{TOP}/{name}": text for name, text in SDIST.items()})


@pytest.fixture(name="layout")
def _layout(tmp_path: Path) -> Layout:
    return Layout(checkout=tmp_path / "checkout", work_root=tmp_path / "work")


@pytest.fixture(name="vendored")
def _vendored(archive: Path, layout: Layout) -> Layout:
    sources.vendor(locked(), archive, layout)
    return layout


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def stage(layout: Layout, llama_cpp: Path | None = None) -> SourceTree:
    return sources.stage(locked(), layout, llama_cpp=llama_cpp)


def names(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir()}


def snapshot(root: Path) -> dict[str, tuple[bytes, int, int]]:
    found = {}
    for name in names(root):
        status = (root / name).stat()
        found[name] = ((root / name).read_bytes(), status.st_mtime_ns, status.st_mode)
    return found


def age(root: Path) -> None:
    for name in names(root):
        os.utime(root / name, (1_000_000_000, 1_000_000_000))


# ------------------------------------------------------------------------------------------------------ unpacking


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, tarfile.REGTYPE) for name in ("../evil", "/evil", f"{TOP}/../../evil", "c:/evil", "..\\evil")),
        *((f"{TOP}/evil", kind) for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)),
    ],
)
def test_a_member_that_leads_out_and_a_link_or_device_are_refused(
    tmp_path: Path, layout: Layout, name: str, kind: bytes
) -> None:
    archive = make_tar(tmp_path / "sdist.tar.gz", {f"{TOP}/fine": "fine", name: ""}, kind)
    with pytest.raises(LockError, match="evil"):
        sources.vendor(locked(), archive, layout)
    assert list(layout.vendor.iterdir()) == []
    assert not [path for path in tmp_path.rglob("*evil*") if path.is_file()]


def test_both_trees_stand_side_by_side_without_git(vendored: Layout) -> None:
    llama_cpp, bindings = vendored.vendor / "llama.cpp", vendored.vendor / "llama-cpp-python"
    assert names(llama_cpp) == {
        name.removeprefix("vendor/llama.cpp/") for name in SDIST if name.startswith("vendor/") and ".git" not in name
    }
    assert names(bindings) == {"pyproject.toml", "llama_cpp/__init__.py", "tests/test_llama.py"}
    assert not [path for path in vendored.vendor.iterdir() if path.name.startswith(".unpacking")]


def test_an_archive_without_llama_cpp_is_refused(tmp_path: Path, layout: Layout) -> None:
    archive = make_tar(tmp_path / "sdist.tar.gz", {f"{TOP}/pyproject.toml": "[project]"})
    with pytest.raises(LockError, match=r"does not contain llama\.cpp"):
        sources.vendor(locked(), archive, layout)


def test_what_is_vendored_is_not_unpacked_again(vendored: Layout) -> None:
    sources.vendor(locked(), Path("/nowhere"), vendored)


def test_another_lock_or_a_missing_tree_is_unpacked(vendored: Layout, archive: Path) -> None:
    (vendored.vendor / "llama.cpp" / "ggml" / "CMakeLists.txt").write_text("older")
    sources.vendor(locked("b" * 64), archive, vendored)
    assert (vendored.vendor / "llama.cpp" / "ggml" / "CMakeLists.txt").read_text() == "project(ggml)"
    (vendored.vendor / "llama-cpp-python").rename(vendored.vendor / "gone")
    sources.vendor(locked("b" * 64), archive, vendored)
    assert (vendored.vendor / "llama-cpp-python").is_dir()


@pytest.mark.parametrize("survived", [0, 1])
def test_an_interrupted_vendoring_is_never_taken_for_whole(
    layout: Layout, archive: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    """Stopped before the first, and between the two trees."""
    done: list[Path] = []

    def stopped(path: Path, target: Path) -> Path:
        if len(done) == survived:
            raise KeyboardInterrupt
        done.append(path)
        return files.rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(sources, "rename", stopped)
        with pytest.raises(KeyboardInterrupt):
            sources.vendor(locked(), archive, layout)
    with pytest.raises(StepResultError, match="not below vendor"):
        stage(layout)
    sources.vendor(locked(), archive, layout)
    assert stage(layout).locked


# -------------------------------------------------------------------------------------------------------- staging


def test_the_staged_tree_is_what_a_build_needs(vendored: Layout) -> None:
    tree = stage(vendored)
    assert (tree.locked, tree.commit, str(tree.version)) == (True, COMMIT, "1.2.3")
    built = {"CMakeLists.txt", "ggml/CMakeLists.txt", "ggml/src/ggml.c", "src/models/llama.cpp", "tools/mtmd/mtmd.cpp"}
    assert names(tree.llama_cpp) == built
    assert names(tree.bindings) == {"pyproject.toml", "llama_cpp/__init__.py"}


def test_staging_again_touches_nothing(vendored: Layout) -> None:
    first = stage(vendored)
    age(first.llama_cpp)
    before = snapshot(first.llama_cpp)
    age(vendored.vendor / "llama-cpp-python")
    for path in (vendored.vendor / "llama.cpp").rglob("*.c"):
        path.chmod(0o755)
    assert stage(vendored) == first
    assert snapshot(first.llama_cpp) == before


def test_only_a_changed_file_is_written(vendored: Layout, tmp_path: Path) -> None:
    """Of the same size and an older time, as after an unpacked archive or a checkout of an older commit."""
    tree = stage(vendored)
    age(tree.llama_cpp)
    checkout = tmp_path / "mine"
    (vendored.vendor / "llama.cpp").rename(checkout)
    (vendored.vendor / "llama.cpp").mkdir()
    write(checkout / "ggml/src/ggml.c", "int gg_l;")
    write(checkout / "ggml/src/new.c", "int new;")
    (checkout / "tools/mtmd/mtmd.cpp").unlink()
    age(checkout)
    changed = stage(vendored, checkout)
    fresh = {name for name, (_, mtime, _) in snapshot(tree.llama_cpp).items() if mtime > 1_000_000_000 * 10**9}
    assert fresh == {"ggml/src/ggml.c", "ggml/src/new.c"}
    assert (tree.llama_cpp / "ggml/src/ggml.c").read_text() == "int gg_l;"
    assert not (tree.llama_cpp / "tools").exists()
    assert changed.llama_cpp_digest != tree.llama_cpp_digest
    assert changed.bindings_digest == tree.bindings_digest


def test_a_file_takes_the_place_of_a_folder_or_a_link_and_the_other_way_round(tmp_path: Path) -> None:
    source, target, outside = tmp_path / "source", tmp_path / "target", write(tmp_path / "outside", "untouched")
    for path in (source / "a", source / "b" / "c", source / "linked", target / "a" / "old", target / "b"):
        write(path, "new")
    for name in ("link", "linked"):
        (target / name).symlink_to(outside)
    sources.mirror(source, target)
    assert names(target) == {"a", "b/c", "linked"}
    assert (target / "linked").read_text() == "new"
    assert outside.read_text() == "untouched", "a link was written through"


def test_names_and_contents_make_the_digest(tmp_path: Path) -> None:
    digests = set()
    for number, (name, text) in enumerate([("a", "1"), ("a", "2"), ("b", "1"), ("d/a", "1")]):
        write(tmp_path / str(number) / name, text)
        digests.add(sources.mirror(tmp_path / str(number), tmp_path / "target"))
    assert len(digests) == 4


@pytest.mark.parametrize("file", ["llama.cpp/ggml/src/ggml.c", "llama-cpp-python/llama_cpp/mine.py"])
def test_edited_vendored_sources_do_not_pass_for_the_locked_ones(vendored: Layout, file: str) -> None:
    write(vendored.vendor / file, "int edited;")
    with pytest.raises(LockError, match=f"{file.partition('/')[0]} is not as it was unpacked") as failure:
        stage(vendored)
    assert ("--llama-cpp" in (failure.value.remedy or "")) is (file.startswith("llama.cpp"))


# ---------------------------------------------------------------------------------------------- the user's checkout


def checkout_of(folder: Path) -> Path:
    write(folder / "ggml" / "CMakeLists.txt", "project(ggml)")
    write(folder / "build-debug" / "CMakeCache.txt", "")
    write(folder / "build-debug" / "big.o", "")
    write(folder / "my-model.gguf", "40 GB")
    write(folder / "scripts" / "__pycache__" / "x.pyc", "")
    (folder / "broken").symlink_to("nowhere")
    return folder


def test_a_users_checkout_is_only_read(vendored: Layout, tmp_path: Path) -> None:
    checkout = checkout_of(tmp_path / "mine")
    write(checkout / ".git" / "HEAD", COMMIT)
    before = {path: path.lstat().st_mtime_ns for path in checkout.rglob("*")}
    tree = stage(vendored, checkout)
    assert (tree.locked, tree.commit) == (False, COMMIT)
    assert names(tree.llama_cpp) == {"ggml/CMakeLists.txt"}
    assert {path: path.lstat().st_mtime_ns for path in checkout.rglob("*")} == before


def test_what_is_not_a_checkout_is_refused(vendored: Layout, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"not a llama\.cpp checkout"):
        stage(vendored, tmp_path)


def test_a_checkout_that_overlaps_with_the_staged_tree_is_refused(vendored: Layout) -> None:
    """Staging would take away what it leaves out, or copy the copy."""
    tree = stage(vendored)
    for path in (tree.llama_cpp, checkout_of(vendored.work_root)):
        with pytest.raises(SettingsError, match="stages its sources"):
            stage(vendored, path)


def test_a_staged_source_that_was_tampered_with_is_written_again(vendored: Layout) -> None:
    """Changed under the same size and time, replaced by a link, or added: the digest is that of what is compiled."""
    sound = stage(vendored)
    files = snapshot(sound.llama_cpp)
    name = min(files)
    path, planted = sound.llama_cpp / name, sound.llama_cpp / "include" / "stdlib.h"
    status, data = path.stat(), path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    write(planted, "#define malloc evil")
    assert stage(vendored).llama_cpp_digest == sound.llama_cpp_digest
    assert path.read_bytes() == data
    assert not planted.exists()
    assert names(sound.llama_cpp) == set(files)
