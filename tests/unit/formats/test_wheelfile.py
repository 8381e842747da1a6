"""Names, RECORD, and the form in which equal contents are equal bytes."""

import os
import stat
import time
import zipfile
from pathlib import Path

import pytest

from build_config.errors import PackagingError
from build_config.formats import wheelfile
from tests.support import wheels

RECORD = f"{wheels.DIST_INFO}/RECORD"


def sealed() -> dict[str, bytes]:
    members = wheels.contents({"libllama.so": b"code"})
    return {**members, RECORD: wheels.record(members)}


def test_a_wheel_is_known_by_name_digest_and_size(tmp_path: Path) -> None:
    path = tmp_path / "llama_cpp_python-0.3.36+cu130-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl"
    path.write_bytes(b"abc")
    wheel = wheelfile.read(path)
    assert str(wheel.version) == "0.3.36+cu130"
    assert wheel.tags == ("py3-none-manylinux2014_x86_64", "py3-none-manylinux_2_17_x86_64")
    assert wheel.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert wheel.size == 3


@pytest.mark.parametrize("name", ["llama.whl", "llama_cpp_python-0.3.36.tar.gz", wheels.wheel_name()])
def test_what_is_no_wheel_or_not_there_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(PackagingError, match=name.split("+", maxsplit=1)[0]):
        wheelfile.read(tmp_path / name)


def test_a_true_record_has_no_problem() -> None:
    assert wheelfile.record_problems(sealed()) == ()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"llama_cpp/lib/libllama.so": b"cOde"}, "llama_cpp/lib/libllama.so is not the file whose digest RECORD gives"),
        ({"llama_cpp/lib/libllama.so": b"code!"}, "llama_cpp/lib/libllama.so has 5 bytes, RECORD says 4"),
        ({"llama_cpp/extra.py": b""}, "RECORD does not list llama_cpp/extra.py"),
        ({RECORD: b"llama_cpp/__init__.py\n"}, "RECORD has a malformed line: llama_cpp/__init__.py"),
        ({RECORD: b"gone.py,sha256=abc,3\n"}, "RECORD lists gone.py, which is missing"),
        ({RECORD: b"llama_cpp/__init__.py,,\n"}, "RECORD gives no secure digest for llama_cpp/__init__.py"),
        ({RECORD: b"llama_cpp/__init__.py,md5=abc,25\n"}, "RECORD gives no secure digest for llama_cpp/__init__.py"),
        ({RECORD: b"a,sha256=,0\na,sha256=,0\n"}, "RECORD lists a twice"),
        ({RECORD: b"\xff"}, "RECORD is missing or unreadable: "),
    ],
)
def test_every_lie_of_a_record_is_told(change: dict[str, bytes], problem: str) -> None:
    problems = wheelfile.record_problems({**sealed(), **change})
    assert any(text.startswith(problem) for text in problems), problems


def test_signatures_need_not_be_recorded() -> None:
    assert wheelfile.record_problems({**sealed(), f"{wheels.DIST_INFO}/RECORD.jws": b"signature"}) == ()


def test_two_dist_infos_are_none() -> None:
    with pytest.raises(PackagingError, match=r"a-1\.dist-info, b-1\.dist-info"):
        wheelfile.dist_info(["a-1.dist-info/METADATA", "b-1.dist-info/METADATA", "c/d-1.dist-info/METADATA"])


def test_equal_contents_give_equal_bytes(tmp_path: Path) -> None:
    """Whatever the order, time, modes and compression of the archive they come from."""
    members = wheels.contents({"libllama.so": b"code" * 1000, "libggml.so": b"more" * 1000})
    first = wheels.write(tmp_path, members)
    other = tmp_path / "other"
    other.mkdir()
    with zipfile.ZipFile(other / first.path.name, "w") as archive:
        archive.mkdir("llama_cpp")
        for name in reversed(members):
            info = zipfile.ZipInfo(name, time.localtime()[:6])
            info.external_attr = (stat.S_IFREG | 0o755) << 16
            archive.writestr(info, members[name])
        archive.writestr(f"{wheels.DIST_INFO}/RECORD", "stale")
        archive.writestr(f"{wheels.DIST_INFO}/RECORD.jws", "stale")

    targets = [folder / "out" / first.path.name for folder in (tmp_path, other)]
    assert wheelfile.write_normalised(first.path, targets[0]).path == targets[0]
    wheelfile.write_normalised(other / first.path.name, targets[1])
    assert targets[0].read_bytes() == targets[1].read_bytes()


def test_the_time_of_the_build_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = wheels.write(tmp_path, wheels.contents({}))
    plain = wheelfile.write_normalised(source.path, tmp_path / "a" / source.path.name)
    monkeypatch.setitem(os.environ, "SOURCE_DATE_EPOCH", "1700000000")
    assert wheelfile.write_normalised(source.path, tmp_path / "b" / source.path.name).sha256 == plain.sha256


def test_a_normalised_wheel_is_sorted_sealed_and_plain(tmp_path: Path) -> None:
    source = wheels.write(tmp_path, wheels.contents({"libllama.so": b"code"}))
    target = tmp_path / "out" / source.path.name
    wheelfile.write_normalised(source.path, target)
    with zipfile.ZipFile(target) as archive:
        infos = archive.infolist()
    names = [info.filename for info in infos]
    assert names[:2] == ["llama_cpp/__init__.py", "llama_cpp/lib/libllama.so"]
    assert names[-1] == RECORD
    assert all(name.startswith(wheels.DIST_INFO) for name in names[2:])
    assert {(info.date_time[0], info.external_attr >> 16, info.compress_type) for info in infos} == {
        (1980, stat.S_IFREG | 0o644, zipfile.ZIP_DEFLATED)
    }
    assert wheelfile.record_problems(wheelfile.read_contents(target)) == ()


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = wheels.write(tmp_path, wheels.contents({"libllama.so": os.urandom(10_000)})).path
    data = bytearray(path.read_bytes())
    data[data.index(b"libllama.so") + 3000] ^= 1
    path.write_bytes(data)
    with pytest.raises(PackagingError, match="not a sound archive"):
        wheelfile.read_contents(path)


def archive(tmp_path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    path = tmp_path / "a.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in members:
            made.writestr(name, data)
    return path


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    """Sixteen members of a gigabyte each, in an archive of a few kilobytes that says so."""
    path = archive(tmp_path, *((f"llama_cpp/{number}", b"\0" * 1000) for number in range(16)))
    data = path.read_bytes()
    path.write_bytes(data.replace((1000).to_bytes(4, "little"), (10**9).to_bytes(4, "little")))
    with pytest.raises(PackagingError, match="16000000000 bytes, more than"):
        wheelfile.read_contents(path)


def test_a_member_that_says_less_than_it_has_is_refused(tmp_path: Path) -> None:
    """zipfile unpacks no more than the size in the directory, so a bomb that lies about it stays small."""
    path = archive(tmp_path, ("llama_cpp/big", b"\0" * 10_000_000))
    data = path.read_bytes()
    assert len(data) < 20_000
    path.write_bytes(data.replace((10_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(PackagingError, match="not a sound archive"):
        wheelfile.read_contents(path)


def test_a_member_that_is_larger_than_the_archive_is_refused(tmp_path: Path) -> None:
    """Before memory is provided for it: found by `python -m measurements.fuzz`."""
    path = archive(tmp_path, ("llama_cpp/big", bytes(range(256)) * 4))
    data = path.read_bytes()
    with zipfile.ZipFile(path) as made:
        packed = made.infolist()[0].compress_size
    path.write_bytes(data.replace(packed.to_bytes(4, "little"), (3 * 10**9).to_bytes(4, "little")))
    with pytest.raises(PackagingError, match="has 3000000000 bytes there, the whole archive"):
        wheelfile.read_contents(path)


def test_too_many_members_are_refused(tmp_path: Path) -> None:
    path = archive(tmp_path, *((f"llama_cpp/{number}", b"") for number in range(wheelfile.MOST_MEMBERS + 1)))
    with pytest.raises(PackagingError, match="10001 files, more than 10000"):
        wheelfile.read_contents(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    """RECORD is compared with one of them, and an installer could take the other one."""
    path = archive(tmp_path, ("llama_cpp/a.py", b"good"), ("llama_cpp/a.py", b"evil"))
    with pytest.raises(PackagingError, match=r"contains llama_cpp/a\.py twice"):
        wheelfile.read_contents(path)


def test_a_link_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("llama_cpp/link")
    link.create_system = 3
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(PackagingError, match="llama_cpp/link is a symbolic link"):
        wheelfile.read_contents(archive(tmp_path, (link, b"/etc/passwd")))
