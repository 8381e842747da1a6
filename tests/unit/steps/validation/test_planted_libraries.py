from pathlib import Path

import pytest

from build_config.model import PlatformName
from build_config.steps.validation.planted_libraries import PlantedLibraries
from build_config.system import platforms

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("platform", "names"),
    [
        ("linux-x86_64", ("libggml-cuda-evil.so", "libggml-cpu-evil.so", "libggml-cuda.so")),
        ("win-amd64", ("ggml-cuda-evil.dll", "ggml-cpu-evil.dll", "ggml-cuda.dll")),
    ],
)
def test_the_names_are_those_that_ggml_searches_for_on_a_platform(
    platform: PlatformName, names: tuple[str, ...], tmp_path: Path
) -> None:
    planted = PlantedLibraries(folder=tmp_path, platform=platforms.of(platform))
    assert planted.names == names
    assert planted.loaded() == ()
    (tmp_path / f"{names[1]}.loaded").touch()
    assert planted.loaded() == (names[1],)
    assert planted.loaded() == (), "since the last call"
