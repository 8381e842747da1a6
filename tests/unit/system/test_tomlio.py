from dataclasses import dataclass
from pathlib import Path

import pytest

from build_config.errors import LockError, SettingsError
from build_config.system import tomlio


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    name: str
    numbers: tuple[int, ...] = ()


@pytest.mark.parametrize(
    "content",
    [None, b'name = "a', b"", b'name = "a"\nunknown = 1', b'name = "a"\nnumbers = 3', b'name = "\xff"'],
    ids=["absent", "no TOML", "a missing key", "an unknown key", "another type", "no UTF-8"],
)
def test_a_file_that_cannot_be_used_is_the_error_of_its_reader(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "row.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"row\.toml cannot be used: ") as caught:
        tomlio.read(path, Row, error=SettingsError)
    assert caught.value.remedy == "correct or restore row.toml"


def test_a_remedy_of_its_own() -> None:
    with pytest.raises(LockError, match=r"row\.toml cannot be used: ") as caught:
        tomlio.parse("name = ", Row, name="row.toml", error=LockError, remedy="lock again")
    assert caught.value.remedy == "lock again"


def test_the_value_is_frozen(tmp_path: Path) -> None:
    path = tmp_path / "row.toml"
    path.write_text('name = "a"\nnumbers = [1, 2]\n')
    assert tomlio.read(path, Row, error=SettingsError) == Row(name="a", numbers=(1, 2))
