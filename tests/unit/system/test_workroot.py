import getpass
import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from build_config.errors import DiskFullError, WorkRootError
from build_config.system import workroot
from build_config.system.console import Console
from build_config.system.layout import Layout
from tests.support import factories, systems

OTHER_USER = 1  # daemon


@pytest.fixture(name="each_system", params=[pytest.param("Linux", marks=systems.modes), "Windows"])
def _each_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to judge a folder: by its mode, and by the access list that ``icacls`` reports."""
    if request.param == "Windows":
        systems.answer_as_windows(monkeypatch)


@pytest.fixture(name="layout")
def _layout(tmp_path: Path) -> Layout:
    return factories.layout(tmp_path / "work", tmp_path / "checkout")


def claim(layout: Layout) -> None:
    with workroot.claim(layout, purpose="test", console=Console(terminal=False)):
        pass


def refusal(layout: Layout) -> WorkRootError:
    with pytest.raises(WorkRootError) as caught:
        claim(layout)
    assert caught.value.exit_code == 16
    assert caught.value.remedy
    return caught.value


@systems.modes
def test_a_missing_root_is_created_whatever_the_umask(layout: Layout) -> None:
    before = os.umask(0o077)
    try:
        claim(layout)
    finally:
        os.umask(before)
    assert layout.work_root.stat().st_mode & 0o777 == 0o755


@pytest.mark.usefixtures("each_system")
def test_the_holder_is_named_while_the_claim_lasts(layout: Layout) -> None:
    note = layout.work_root / "lock.holder"
    with workroot.claim(layout, purpose="build --arch 89", console=Console(terminal=False)):
        expected = {"pid": os.getpid(), "user": getpass.getuser(), "purpose": "build --arch 89"}
        holder = json.loads(note.read_text(encoding="utf-8"))
        assert {**expected, "checkout": str(layout.checkout)}.items() <= holder.items()
    assert not note.exists()


@systems.modes
@pytest.mark.parametrize("dangling", [False, True])
def test_a_symbolic_link_is_refused(layout: Layout, tmp_path: Path, *, dangling: bool) -> None:
    elsewhere = tmp_path / "elsewhere"
    if not dangling:
        elsewhere.mkdir()
    layout.work_root.symlink_to(elsewhere)
    assert f"{layout.work_root} is a symbolic link (to {elsewhere})" in refusal(layout).message
    assert elsewhere.exists() is not dangling
    assert not [*elsewhere.glob("*")]


@systems.modes
def test_a_link_above_the_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert str(tmp_path / "link") in refusal(factories.layout(tmp_path / "link" / "work")).message
    assert list((tmp_path / "real").iterdir()) == []


@pytest.mark.usefixtures("each_system")
def test_a_file_in_its_place_is_refused(layout: Layout) -> None:
    layout.work_root.write_text("mine", encoding="utf-8")
    assert "is not a folder" in refusal(layout).message
    assert layout.work_root.read_text(encoding="utf-8") == "mine"


@systems.modes
@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
def test_a_root_that_others_may_write_to_is_refused(layout: Layout, mode: int) -> None:
    layout.work_root.mkdir()
    layout.work_root.chmod(mode)
    error = refusal(layout)
    assert f"(mode {mode:o})" in error.message
    assert "chmod go-w" in str(error.remedy)


@systems.modes
@pytest.mark.parametrize(
    ("make", "program"),
    [
        (lambda root: root.write_text("mine", encoding="utf-8"), "mv"),
        (lambda root: root.symlink_to("elsewhere"), "rm"),
        (lambda root: (root.mkdir(), root.chmod(0o777)), "chmod"),
    ],
)
def test_the_command_in_a_refusal_names_the_folder_as_one_word(
    tmp_path: Path, make: Callable[[Path], object], program: str
) -> None:
    root = tmp_path / "o'ne é $HOME"
    make(root)
    command = (
        str(refusal(factories.layout(root)).remedy).rpartition(": ")[2].removesuffix(", if its contents are yours")
    )
    words = shlex.split(command)
    assert (words[0], str(root) in words) == (program, True)


@systems.modes
def test_above_the_root_only_the_sticky_bit_makes_a_shared_folder_safe(tmp_path: Path) -> None:
    layout = factories.layout(tmp_path / "shared" / "work")
    layout.work_root.parent.mkdir()
    layout.work_root.parent.chmod(0o777)
    assert "can be written to by others" in refusal(layout).message
    layout.work_root.parent.chmod(0o1777)
    claim(layout)


@systems.root_only
def test_a_root_of_another_user_is_refused_with_the_name(layout: Layout) -> None:
    layout.work_root.mkdir()
    os.chown(layout.work_root, OTHER_USER, OTHER_USER)
    error = refusal(layout)
    assert f"belongs to {layout.work_root.owner()} (user id {OTHER_USER}), you are {getpass.getuser()}" in error.message
    assert f"rm -r {layout.work_root}" in str(error.remedy)


@systems.root_only
def test_a_folder_of_another_user_above_the_root_is_refused_and_not_to_be_removed(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 54321, OTHER_USER)
    error = refusal(factories.layout(tmp_path / "theirs" / "work"))
    assert "belongs to user id 54321" in error.message
    assert "rm" not in str(error.remedy)


@pytest.mark.usefixtures("each_system")
def test_a_missing_folder_above_the_root_is_refused(tmp_path: Path) -> None:
    error = refusal(factories.layout(tmp_path / "missing" / "work"))
    assert "cannot be created: " in error.message
    assert str(tmp_path / "missing") in str(error.remedy)


def test_free_space_is_that_of_the_disk_that_will_hold_the_path(tmp_path: Path) -> None:
    free = workroot.free_bytes(tmp_path / "not" / "there" / "yet")
    assert free == pytest.approx(workroot.free_bytes(tmp_path), rel=0.2)
    assert free > 0


def test_too_little_space_is_said_before_anything_starts(layout: Layout) -> None:
    workroot.require_space(layout, 1)
    with pytest.raises(DiskFullError, match=r"the build needs 1000000000\.0 GB") as caught:
        workroot.require_space(layout, 10**18)
    assert caught.value.exit_code == 15
    assert not layout.work_root.exists()


@pytest.mark.usefixtures("each_system")
def test_a_program_that_reads_who_holds_the_root_keeps_nobody_from_releasing_it(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows removes no open file, and a build that waits reads this one five times a second."""
    with monkeypatch.context() as patch, workroot.claim(layout, purpose="first", console=Console(terminal=False)):
        patch.setattr(Path, "unlink", Mock(side_effect=PermissionError))
    claim(layout)


@pytest.mark.parametrize(
    ("mapped", "owner"),
    [("         0          0 4294967295\n", 0), ("      1000       1000          1\n", 65534), ("", 0)],
)
def test_in_a_user_namespace_without_root_its_folders_belong_to_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mapped: str, owner: int
) -> None:
    (tmp_path / "uid_map").write_text(mapped)
    (tmp_path / "overflow").write_text("65534\n")
    monkeypatch.setattr(workroot, "USERS_MAPPED", tmp_path / "uid_map")
    monkeypatch.setattr(workroot, "USER_OVERFLOW", tmp_path / "overflow")
    assert workroot._root_user() == owner
