import os
import stat
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from build_config import inputs
from build_config.errors import LockError
from build_config.model import LockedFile, ToolkitLock
from build_config.plan import ToolkitPlan
from build_config.steps.locks import download
from build_config.steps.toolchain import locked_cuda, programs
from build_config.system.console import Console
from build_config.system.files import file_sha256
from tests.support import factories, systems


def unpack(folder: Path, *members: str | zipfile.ZipInfo, name: str = "x.whl") -> Path:
    """Unpack a wheel of these members; returns the toolkit's root."""
    with zipfile.ZipFile(folder / name, "w") as archive:
        for member in members:
            archive.writestr(member, f"text of {getattr(member, 'filename', member)}")
    locked_cuda.unpack(folder / name, folder / "root", major="13")
    return folder / "root"


def locked(filename: str, digit: str = "a") -> LockedFile:
    return LockedFile(name="nvidia-x", version="13.0.1", filename=filename, sha256=digit * 64, size=1)


def test_only_the_toolkit_and_the_licences_are_unpacked_with_the_times_of_the_wheel(tmp_path: Path) -> None:
    root = unpack(
        tmp_path,
        zipfile.ZipInfo("nvidia/cu13/include/cuda.h", date_time=(2025, 8, 29, 17, 2, 0)),
        "nvidia/cu12/include/cuda.h",
        "nvidia/__init__.py",
        "nvidia_x-13.dist-info/licenses/License.txt",
        "nvidia_x-13.dist-info/RECORD",
    )
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    assert files == ["include/cuda.h", "licenses/nvidia_x-13/License.txt"]
    assert (root / "include/cuda.h").read_text(encoding="utf-8") == "text of nvidia/cu13/include/cuda.h"
    assert (root / "include/cuda.h").stat().st_mtime == 1_756_486_920, "or all is compiled again"


@pytest.mark.parametrize("name", ["/etc/passwd", "nvidia/cu13/../../../evil", "..\\evil", "nvidia/cu13/..\\evil"])
def test_a_member_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(LockError, match="leads to a path outside"):
        unpack(tmp_path, name)
    assert [path.name for path in tmp_path.iterdir()] == ["x.whl"]


def test_a_symbolic_link_a_file_of_two_wheels_and_what_is_not_an_archive_are_refused(tmp_path: Path) -> None:
    member = zipfile.ZipInfo("nvidia/cu13/lib/libx.so")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(LockError, match="is a symbolic link"):
        unpack(tmp_path, member)
    unpack(tmp_path, "nvidia/cu13/include/cuda.h")
    with pytest.raises(LockError, match=r"b\.whl cannot be unpacked"):
        unpack(tmp_path, "nvidia/cu13/include/cuda.h", name="b.whl")
    (tmp_path / "c.whl").write_text("not found", encoding="utf-8")
    with pytest.raises(LockError, match=r"c\.whl cannot be unpacked"):
        locked_cuda.unpack(tmp_path / "c.whl", tmp_path / "root", major="13")


@systems.links
def test_the_unpacked_wheels_become_a_toolkit_root(tmp_path: Path) -> None:
    names = ("bin/nvcc", "bin/crt/link.stub", "nvvm/bin/cicc", "lib/libcudart.so.13", "lib/libnvvm.so.4", "lib/libx.a")
    root = unpack(tmp_path, *(f"nvidia/cu13/{name}" for name in names))
    locked_cuda.repair(root)
    assert os.access(root / "bin/nvcc", os.X_OK)
    assert os.access(root / "nvvm/bin/cicc", os.X_OK)
    assert (root / "bin/crt/link.stub").stat().st_mode & 0o111 == 0
    assert (root / "lib64/libcudart.so").readlink() == Path("libcudart.so.13")
    assert (root / "lib/libnvvm.so").readlink() == Path("libnvvm.so.4")


def test_the_identity_depends_on_the_files_and_not_on_their_order() -> None:
    a, b, c = locked("a.whl", "a"), locked("b.whl", "b"), locked("b.whl", "c")
    same, turned, fewer, changed = (
        locked_cuda.lock_digest(ToolkitLock(cuda="13.0", platform="linux-x86_64", files=files))
        for files in ((a, b), (b, a), (a,), (a, c))
    )
    assert same == turned
    assert len({same, fewer, changed}) == 3


def test_wheels_that_are_not_those_of_the_lock_are_refused(tmp_path: Path) -> None:
    lock = ToolkitLock(cuda="13.0", platform="linux-x86_64", files=(locked("a.whl"), locked("b.whl")))
    with pytest.raises(LockError, match="not the wheels of the lock"):
        locked_cuda.provide(lock, (tmp_path / "a.whl",), factories.layout(tmp_path), cc="cc")


@systems.links
def test_a_toolkit_without_its_compiler_has_what_reads_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = {
        "nvidia-cuda-nvcc": "nvidia/cu13/bin/nvcc",
        "nvidia-nvvm": "nvidia/cu13/nvvm/bin/cicc",
        "nvidia-cuda-runtime": "nvidia/cu13/include/cuda_runtime_api.h",
        "nvidia-cublas": "nvidia/cu13/lib/libcublas.so.13",
        "nvidia-cuda-cuobjdump": "nvidia/cu13/bin/cuobjdump",
    }
    for name, member in members.items():
        with zipfile.ZipFile(tmp_path / f"{name}.whl", "w") as archive:
            archive.writestr(member, name)
    files = tuple(replace(locked(f"{name}.whl"), name=name, version="13.0.88") for name in members)
    lock = ToolkitLock(cuda="13.0", platform="linux-x86_64", files=files)
    fetched: list[str] = []

    def fetch(files: tuple[LockedFile, ...], *_: object) -> tuple[Path, ...]:
        fetched.extend(file.name for file in files)
        return tuple(tmp_path / file.filename for file in files)

    monkeypatch.setattr(download, "fetch", fetch)
    monkeypatch.setattr(programs, "find_cuobjdump", lambda *_: None)  # it would run it
    layout = factories.layout(tmp_path / "work")
    chain = replace(factories.toolchain(), cuda=locked_cuda.planned(lock, layout))
    plan = ToolkitPlan(release="13.0", lock=lock, installed=None, host=chain.host)
    for _ in range(2):
        inputs.provide_toolchain(chain, plan, layout, Console(), compiles=False)
        assert set(fetched) == {"nvidia-cuda-runtime", "nvidia-cublas", "nvidia-cuda-cuobjdump"}
    provided = inputs.provide_toolchain(chain, plan, layout, Console(), compiles=False)
    assert provided.cuda == replace(chain.cuda, root=provided.cuda.root), "its identity is that of the whole toolkit"
    assert provided.cuda.root != chain.cuda.root
    there = {path.name for path in provided.cuda.root.rglob("*") if path.is_file()}
    assert there == {"cuda_runtime_api.h", "libcublas.so", "libcublas.so.13", "cuobjdump", "toolkit.json"}
    assert os.access(provided.cuda.root / "bin" / "cuobjdump", os.X_OK)


# ------------------------------------------------------------------------------------------------------- tampering


@pytest.fixture(name="root")
def _root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished root with a compiler and a header; neither is run."""
    monkeypatch.setattr(locked_cuda, "_compile_stub", lambda *_: None)
    monkeypatch.setattr(locked_cuda, "_version", lambda _: "13.0.88")
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        for name in ("bin/nvcc", "include/cuda.h", "lib/libcudart.so.13"):
            archive.writestr(f"nvidia/cu13/{name}", f"text of {name}")
    return provided(tmp_path)


def provided(folder: Path) -> Path:
    lock = ToolkitLock(cuda="13.0", platform="linux-x86_64", files=(locked("a.whl"),))
    return locked_cuda.provide(lock, (folder / "a.whl",), factories.layout(folder), cc="cc").root


def replace_keeping_size_and_time(path: Path) -> None:
    status, data = path.stat(), path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def relink(path: Path) -> None:
    path.unlink()
    path.symlink_to("../../../elsewhere.so")


@systems.links
@pytest.mark.parametrize(
    ("name", "tamper"),
    [
        ("include/cuda.h", replace_keeping_size_and_time),
        ("bin/nvcc", replace_keeping_size_and_time),
        ("include/cuda.h", Path.unlink),
        ("include/stdlib.h", Path.touch),
        ("lib/libcudart.so", relink),
        (locked_cuda.STAMP, lambda path: path.write_text("{}", encoding="utf-8")),
    ],
    ids=["changed header", "changed program", "missing", "planted", "link elsewhere", "no stamp"],
)
def test_a_root_that_was_tampered_with_is_made_again(root: Path, name: str, tamper: Callable[[Path], object]) -> None:
    def contents() -> dict[str, bytes | Path]:
        return {
            path.relative_to(root).as_posix(): path.readlink() if path.is_symlink() else path.read_bytes()
            for path in root.rglob("*")
            if not path.is_dir() and path.name != locked_cuda.STAMP
        }

    sound = contents()
    tamper(root / name)
    assert provided(root.parents[1]) == root
    assert contents() == sound


@systems.links
def test_a_sound_root_is_not_read_again_and_a_touched_one_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def digest(path: Path) -> str:
        read.append(path.name)
        return file_sha256(path)

    monkeypatch.setattr(locked_cuda, "file_sha256", digest)
    inode = (root / "bin" / "nvcc").stat().st_ino
    provided(root.parents[1])
    assert read == []
    (root / "include" / "cuda.h").touch()
    for _ in range(2):
        provided(root.parents[1])
    assert read == ["cuda.h"]
    assert (root / "bin" / "nvcc").stat().st_ino == inode
