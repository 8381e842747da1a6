import re
import shutil
from importlib import metadata
from pathlib import Path
from typing import get_args

import pytest

from build_config.errors import LockError, SettingsError
from build_config.model import LockedFile, PlatformName
from build_config.steps import locks
from build_config.system import layout as layout_module
from build_config.system.layout import PACKAGE, Layout

LOCKS = PACKAGE / "data" / "locks"
SHIPPED = Layout(checkout=PACKAGE.parent, work_root=Path("/nowhere"))
LINUX = "cuda-13.0-linux-x86_64.toml"


@pytest.fixture(name="folder")
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the shipped locks that ``SHIPPED.locks`` points to."""
    monkeypatch.setattr(layout_module, "PACKAGE", tmp_path)
    return Path(shutil.copytree(LOCKS, tmp_path / "data" / "locks"))


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def pins(name: str) -> list[locks.Pin]:
    return list(locks.read_pins(locks.contents(LOCKS), f"{name}.txt"))


# -------------------------------------------------------------------------------------------------------- shipped


@pytest.mark.parametrize("platform", get_args(PlatformName))
def test_the_shipped_toolkits_are_whole(platform: PlatformName) -> None:
    toolkit = locks.read_toolkit_lock(SHIPPED, "13.0", platform)
    series = {file.name: ".".join(file.version.split(".")[:2]) for file in toolkit.files}
    assert series.pop("nvidia-cuda-cuobjdump") == "13.2"
    assert set(series.values()) == {"13.0"}
    expected = 8 if platform == "linux-x86_64" else 7
    assert len({file.filename for file in toolkit.files}) == expected


def test_the_locks_share_their_versions() -> None:
    names = ("requirements", "lock", "test")
    requirements, making, tests = ({(pin.name, pin.version) for pin in pins(name)} for name in names)
    assert requirements < making < tests


def test_the_wheel_is_tried_with_the_libraries_of_the_toolkit() -> None:
    toolkit = {file.name: file.version for file in locks.read_toolkit_lock(SHIPPED, "13.0", "linux-x86_64").files}
    validation = {pin.name: pin.version for pin in pins("validation")}
    for name in ("nvidia-cublas", "nvidia-cuda-runtime"):
        assert validation[name] == toolkit[name]


@pytest.mark.parametrize("name", list(locks.REQUIREMENTS))
def test_requirements_name_hashes_and_no_place(name: str) -> None:
    assert all(pin.hashes for pin in pins(name))
    text = (LOCKS / f"{name}.txt").read_text()
    assert not re.search(r"://|^\s*-|(?<![\w])/", re.sub(r"^\s+--hash=sha256:\w{64}", "", text, flags=re.MULTILINE))


def test_the_environment_of_the_tests_is_the_locked_one() -> None:
    """To fix it: `nox -s tests` installs the lock; after a change of a .in file, `nox -s lock` makes it again."""
    markers = {pin: pin.requirement.marker for pin in pins("test")}
    wanted = {pin.name: pin.version for pin, marker in markers.items() if marker is None or marker.evaluate()}
    assert {name: metadata.version(name) for name in wanted} == wanted


# -------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("release", ["12.4", "", "13", "../13.0"])
def test_an_unknown_release_is_refused_and_the_locked_ones_named(release: str) -> None:
    with pytest.raises(SettingsError, match=r"locked: 13\.0") as failure:
        locks.read_toolkit_lock(SHIPPED, release, "linux-x86_64")
    assert "--cuda system" in (failure.value.remedy or "")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('cuda = "13.0"', 'cuda = "13.1"', "is for CUDA 13.1"),
        ("linux-x86_64", "win-amd64", "is for CUDA 13.0 on win-amd64"),
        ("size = ", "sise = ", "sise"),
        ('version = "', 'version = "1\n', "cannot be used"),
        ('sha256 = "', 'sha256 = "0', "an invalid name, digest or size"),
        ('filename = "', 'filename = "../', "an invalid name, digest or size"),
        ("size = ", "size = -", "an invalid name, digest or size"),
        ('name = "nvidia-nvvm"', 'name = "nvidia-other"', "whl is not nvidia-other 13.0.88"),
        ('version = "13.0.88"', 'version = "13.0.89"', "whl is not nvidia-cuda-nvcc 13.0.89"),
        ('version = "13.0.88"', 'version = "any"', "whl is not nvidia-cuda-nvcc any"),
        (
            'name = "nvidia-nvvm"\nversion = "13.0.88"\nfilename = "nvidia_nvvm',
            'name = "nvidia-other"\nversion = "13.0.88"\nfilename = "nvidia_other',
            "lacks nvidia-nvvm",
        ),
    ],
)
def test_a_malformed_lock_is_refused(folder: Path, old: str, new: str, said: str) -> None:
    change(folder / LINUX, old, new)
    with pytest.raises(LockError, match=re.escape(said)) as failure:
        locks.read_toolkit_lock(SHIPPED, "13.0", "linux-x86_64")
    assert LINUX in failure.value.message
    assert failure.value.remedy


@pytest.mark.parametrize("lock", [LINUX, locks.SOURCE_LOCK])
def test_one_changed_digit_of_a_lock_is_refused_or_names_other_bytes(folder: Path, lock: str) -> None:
    """Before anything is opened: what is left to the digest check is a lock with another digest, size or file name."""

    def read() -> tuple[object, ...]:
        if lock == LINUX:
            return locks.read_toolkit_lock(SHIPPED, "13.0", "linux-x86_64").files
        return (locks.read_source_lock(SHIPPED).file,)

    sound, before = (folder / lock).read_text(encoding="utf-8"), read()
    for match in re.finditer(r"[0-9]", sound.partition("\n")[2]):
        place = len(sound) - len(sound.partition("\n")[2]) + match.start()
        other = "1" if match[0] != "1" else "2"
        (folder / lock).write_text(sound[:place] + other + sound[place + 1 :], encoding="utf-8")
        try:
            after = read()
        except LockError:
            continue
        differs = [(one, two) for one, two in zip(before, after, strict=True) if one != two]
        assert len(differs) == 1, sound[place - 40 : place + 1]
        one, two = differs[0]
        assert isinstance(one, LockedFile)
        assert isinstance(two, LockedFile)
        assert (one.sha256, one.size, one.filename) != (two.sha256, two.size, two.filename)


def test_a_missing_lock_is_refused(folder: Path) -> None:
    (folder / locks.SOURCE_LOCK).unlink()
    with pytest.raises(LockError, match=r"llama-cpp-python\.toml"):
        locks.read_source_lock(SHIPPED)


def test_the_digests_follow_the_locks_and_nothing_else(folder: Path) -> None:
    before = dict(locks.lock_digests(SHIPPED))
    change(folder / LINUX, "13.0.88", "13.0.89")
    change(folder / "test.in", "pytest", "nose")
    after = dict(locks.lock_digests(SHIPPED))
    assert {name for name in before if before[name] != after[name]} == {LINUX}
    assert {locks.SOURCE_LOCK, "requirements.txt"} < after.keys()


@pytest.mark.parametrize("line", ["packaging>=1", "packaging", "packaging==1 and more", "packaging==1,==2"])
def test_what_is_not_a_pin_is_refused(folder: Path, line: str) -> None:
    (folder / "some.txt").write_text(line)
    with pytest.raises(LockError, match=r"some\.txt"):
        list(locks.read_pins(locks.contents(folder), "some.txt"))
