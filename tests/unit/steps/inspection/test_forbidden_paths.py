from pathlib import Path

import pytest

from build_config.steps import inspection
from build_config.system.layout import CANONICAL_WORK_ROOT
from tests.support import factories, windows_machine


def test_the_paths_of_this_machine_are_forbidden_but_no_system_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/root")
    layout = factories.layout(Path("/somewhere/work"), checkout=Path("/home/me/checkout"))
    assert inspection.forbidden_paths(layout) == ("/home/me/checkout", "/somewhere/work", str(CANONICAL_WORK_ROOT))


def test_on_windows_a_path_is_forbidden_with_either_slash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "")
    monkeypatch.setenv("USERPROFILE", r"C:\Users\jörg")
    layout = windows_machine.layout()
    forbidden = inspection.forbidden_paths(layout)
    for path in (r"C:\Users\jörg", "C:/Users/jörg", r"C:\llama-cuda-wheels", "C:/llama-cuda-wheels"):
        assert path in forbidden
