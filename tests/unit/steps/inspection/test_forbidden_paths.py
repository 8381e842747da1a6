from pathlib import Path

import pytest

from build_config.steps import inspection
from build_config.steps.inspection import archive
from build_config.system.layout import CANONICAL_WORK_ROOT
from tests.support import factories, windows_machine


def test_the_paths_of_this_machine_are_forbidden_but_no_system_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/root")
    monkeypatch.setenv("USERPROFILE", "/home/me")
    layout = factories.layout(Path("/somewhere/work"), checkout=Path("/home/me/checkout"))
    paths = {str(layout.checkout), str(layout.work_root), str(CANONICAL_WORK_ROOT), "/home/me"}
    assert inspection.forbidden_paths(layout) == tuple(sorted(paths))


def test_a_path_of_windows_is_found_in_every_way_to_write_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "")
    monkeypatch.setenv("USERPROFILE", r"C:\Users\jörg")
    forbidden = inspection.forbidden_paths(windows_machine.layout())
    assert {r"C:\Users\jörg", r"C:\llama-cuda-wheels"} < set(forbidden)
    pattern = archive.path_pattern(forbidden)
    assert pattern is not None
    for text in (
        r"C:\Users\jörg\a.cpp",
        "-IC:/Users/jörg",
        r"c:\users\jörg",
        r'"C:\\llama-cuda-wheels\\src"',
        "C:\\USERS/jörg",
    ):
        assert pattern.search(text.encode()), text
    for text in (r"C:\Users\jörgen", r"C:\Windows", r"XC:\Users\jörg"):
        assert not pattern.search(text.encode()), text
