from pathlib import Path

import pytest

from build_config.errors import SettingsError
from build_config.system import platforms
from build_config.system.console import Console
from build_config.system.platforms.windows import WINDOWS
from build_config.tasks import simulate
from tests.support import factories

pytestmark = pytest.mark.unit


def test_without_a_compiler_for_it_a_simulated_gpu_is_refused_before_anything_is_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(platforms, "HERE", WINDOWS)
    with pytest.raises(SettingsError, match=r"Visual C\+\+ does not compile it") as raised:
        simulate.provide_simulation("8.9", factories.layout(tmp_path), Console(terminal=False), cuda="13.0")
    assert "--simulate" in (raised.value.remedy or "")
