from pathlib import Path

import pytest

from build_config import archs
from build_config.errors import SettingsError
from build_config.steps.units import settings
from build_config.system.layout import PACKAGE

SHIPPED = PACKAGE / "data" / "variants.toml"


def test_the_shipped_settings_are_valid() -> None:
    assert settings.read(SHIPPED).core.cpu_variants[0] == "x64"


@pytest.mark.parametrize(
    ("gcc", "left_out"),
    [
        ("9.5.0", {"alderlake", "sapphirerapids", "zen4"}),
        ("10.2.1", {"alderlake", "sapphirerapids"}),
        ("11.1.0", set()),
        ("12.2.0", set()),
    ],
)
def test_an_older_gcc_compiles_the_variants_whose_instructions_it_knows(gcc: str, left_out: set[str]) -> None:
    core = settings.read(SHIPPED).core
    assert set(core.too_new_for(gcc)) == left_out


@pytest.mark.parametrize(("shards", "architectures"), [("89", 1), ("86+120", 2), ("86,120", 2), ("86+120,89", 3)])
def test_the_limit_of_a_wheel_grows_with_its_architectures(shards: str, architectures: int) -> None:
    limits = settings.read(SHIPPED).wheel
    selection = archs.resolve(shards, cuda_release="13.0", gpus=())
    assert limits.max_size(selection.shards) == architectures * limits.max_size_one_arch


@pytest.mark.parametrize(
    ("old", "new"),
    [("[wheel]", "[wheels]"), ("max_size_one_arch", "max_sise_one_arch"), ("[cuda.defines]", "[cuda.defines")],
)
def test_an_unknown_key_or_bad_toml_is_an_error(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "variants.toml"
    path.write_text(SHIPPED.read_text().replace(old, new))
    with pytest.raises(SettingsError, match=r"variants\.toml"):
        settings.read(path)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        settings.read(tmp_path / "variants.toml")
