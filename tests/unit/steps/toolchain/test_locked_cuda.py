from __future__ import annotations

import dataclasses
import os
import stat
import zipfile
from pathlib import Path

import pytest

from build_config.errors import LockError
from build_config.model import LockedFile, ToolkitLock
from build_config.steps.toolchain import locked_cuda
from build_config.system.layout import Layout

pytestmark = pytest.mark.unit


def make_wheel(path: Path, *members: str | zipfile.ZipInfo) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.writestr(member, f"text of {getattr(member, 'filename', member)}")
    return path


def locked(filename: str, digit: str = "a") -> LockedFile:
    return LockedFile(name="nvidia-x", version="13.0.1", filename=filename, sha256=digit * 64, size=1)


def test_only_the_toolkit_and_the_licences_are_unpacked(tmp_path: Path) -> None:
    wheel = make_wheel(
        tmp_path / "x.whl",
        "nvidia/cu13/include/cuda.h",
        "nvidia/cu12/include/cuda.h",
        "nvidia/__init__.py",
        "nvidia_x-13.dist-info/licenses/License.txt",
        "nvidia_x-13.dist-info/RECORD",
    )
    root = tmp_path / "root"
    locked_cuda.unpack(wheel, root, major="13")
    files = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    assert files == ["include/cuda.h", "licenses/nvidia_x-13/License.txt"]
    assert (root / "include/cuda.h").read_text(encoding="utf-8") == "text of nvidia/cu13/include/cuda.h"


def test_files_keep_the_time_of_the_wheel_so_that_nothing_is_rebuilt_for_them(tmp_path: Path) -> None:
    member = zipfile.ZipInfo("nvidia/cu13/include/cuda.h", date_time=(2025, 8, 29, 17, 2, 0))
    locked_cuda.unpack(make_wheel(tmp_path / "x.whl", member), tmp_path / "root", major="13")
    assert (tmp_path / "root/include/cuda.h").stat().st_mtime == 1_756_486_920


@pytest.mark.parametrize("name", ["/etc/passwd", "nvidia/cu13/../../../evil", "..\\evil", "nvidia/cu13/..\\evil"])
def test_a_member_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    wheel = make_wheel(tmp_path / "x.whl", name)
    with pytest.raises(LockError, match="leads to a path outside"):
        locked_cuda.unpack(wheel, tmp_path / "root", major="13")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.whl"]


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    member = zipfile.ZipInfo("nvidia/cu13/lib/libx.so")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(LockError, match="is a symbolic link"):
        locked_cuda.unpack(make_wheel(tmp_path / "x.whl", member), tmp_path / "root", major="13")


def test_two_wheels_may_not_bring_the_same_file(tmp_path: Path) -> None:
    for name in ("a.whl", "b.whl"):
        make_wheel(tmp_path / name, "nvidia/cu13/include/cuda.h")
    locked_cuda.unpack(tmp_path / "a.whl", tmp_path / "root", major="13")
    with pytest.raises(LockError, match=r"b\.whl cannot be unpacked"):
        locked_cuda.unpack(tmp_path / "b.whl", tmp_path / "root", major="13")


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.whl").write_text("not found", encoding="utf-8")
    with pytest.raises(LockError, match=r"x\.whl cannot be unpacked"):
        locked_cuda.unpack(tmp_path / "x.whl", tmp_path / "root", major="13")


def test_the_unpacked_wheels_become_a_toolkit_root(tmp_path: Path) -> None:
    names = ("bin/nvcc", "bin/crt/link.stub", "nvvm/bin/cicc", "lib/libcudart.so.13", "lib/libnvvm.so.4", "lib/libx.a")
    locked_cuda.unpack(make_wheel(tmp_path / "x.whl", *(f"nvidia/cu13/{name}" for name in names)), tmp_path, major="13")
    locked_cuda.repair(tmp_path)
    assert os.access(tmp_path / "bin/nvcc", os.X_OK)
    assert os.access(tmp_path / "nvvm/bin/cicc", os.X_OK)
    assert (tmp_path / "bin/crt/link.stub").stat().st_mode & 0o111 == 0
    assert (tmp_path / "lib64/libcudart.so").readlink() == Path("libcudart.so.13")
    assert (tmp_path / "lib/libnvvm.so").readlink() == Path("libnvvm.so.4")


def test_the_identity_depends_on_the_files_and_not_on_their_order() -> None:
    a, b = locked("a.whl", "a"), locked("b.whl", "b")
    lock = ToolkitLock(cuda="13.0", platform="linux-x86_64", files=(a, b))
    assert locked_cuda.lock_digest(lock) == locked_cuda.lock_digest(dataclasses.replace(lock, files=(b, a)))
    assert locked_cuda.lock_digest(lock) != locked_cuda.lock_digest(dataclasses.replace(lock, files=(a,)))
    changed = dataclasses.replace(lock, files=(a, locked("b.whl", "c")))
    assert locked_cuda.lock_digest(lock) != locked_cuda.lock_digest(changed)


def test_wheels_that_are_not_those_of_the_lock_are_refused(tmp_path: Path) -> None:
    lock = ToolkitLock(cuda="13.0", platform="linux-x86_64", files=(locked("a.whl"), locked("b.whl")))
    layout = Layout(checkout=tmp_path, work_root=tmp_path)
    with pytest.raises(LockError, match="not the wheels of the lock"):
        locked_cuda.provide(lock, (tmp_path / "a.whl",), layout, cc="cc")
