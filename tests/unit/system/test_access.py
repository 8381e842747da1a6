"""Who may change a folder on Windows. The descriptors are those of folders as Windows makes them."""

from pathlib import Path
from unittest.mock import Mock

import pytest

from build_config.errors import WorkRootError
from build_config.system import platforms, processes, workroot
from build_config.system.platforms import access
from build_config.system.platforms.windows import WINDOWS
from tests.support.systems import ME, OURS
from tests.support.windows_machine import windows_path

BELOW_C = (
    "D:AI(A;OICIID;FA;;;BA)(A;OICIID;FA;;;SY)(A;OICIID;0x1200a9;;;BU)(A;ID;0x1301bf;;;AU)(A;OICIIOID;SDGXGWGR;;;AU)"
)
"""What a folder directly below C:\\ inherits: every user who is logged on may change it."""
ROOT = windows_path(r"C:\llama-cuda-wheels")


@pytest.mark.parametrize(
    ("descriptor", "unexpected"),
    [
        (OURS, set()),
        (BELOW_C, {"AU"}),
        ("D:(A;;FA;;;WD)", {"WD"}),
        ("D:(A;OICI;FRFX;;;BU)(A;;0x1200a9;;;WD)", set()),
        ("D:(A;;FR;;;BU)(A;;DC;;;BU)", {"BU"}),
        ("D:(A;;FA;;;S-1-5-21-1-2-3-1002)", {"S-1-5-21-1-2-3-1002"}),
        ("D:(D;;FA;;;WD)(A;;FR;;;WD)", set()),
        ("D:(A;;ZZ;;;BU)", {"BU"}),
        ("D:(A;;FA;;;BA)S:(A;;FA;;;WD)", set()),
        ("D:NO_ACCESS_CONTROL", {"WD"}),
        ("", {"WD"}),
    ],
)
def test_who_else_may_change_a_folder(descriptor: str, unexpected: set[str]) -> None:
    assert access.unexpected_writers(descriptor, ME) == unexpected


def test_what_icacls_saves_and_whoami_prints() -> None:
    saved = ("llama-cuda-wheels\r\n" + OURS + "\r\n").encode("utf-16-le")
    assert access.parse_saved(saved) == OURS
    assert access.parse_saved(b"\xff\xfe" + saved) == OURS
    assert access.parse_whoami(f'"rechner\\jörg","{ME}"\r\n') == ME
    assert access.parse_whoami("ERROR: unable to get user name") is None


def test_a_folder_as_windows_makes_it_is_refused_with_the_command_that_fixes_it() -> None:
    with pytest.raises(WorkRootError, match="AU") as refused:
        workroot.judge_windows(ROOT, BELOW_C, ME)
    workroot.judge_windows(ROOT, OURS, ME)
    folder = ("icacls", r"C:\llama-cuda-wheels", "/inheritance:r", "/grant:r")
    users = (f"*{ME}:(OI)(CI)F", "*S-1-5-18:(OI)(CI)F", "*S-1-5-32-544:(OI)(CI)F")  # this one, system, administrators
    assert workroot.restriction(ROOT, ME) == (*folder, *users)
    assert str(refused.value.remedy).startswith(" ".join(folder))


def test_a_folder_whose_access_list_icacls_does_not_save_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platforms, "HERE", WINDOWS)
    monkeypatch.setattr(processes, "run", icacls := Mock())
    with pytest.raises(WorkRootError, match="saved nothing"):
        workroot.check(tmp_path)
    assert icacls.call_args.args[0].argv[:3] == ("icacls", str(tmp_path), "/save")
