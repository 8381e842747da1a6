"""Options that need one another, as a user passes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from build_config.commands import app
from build_config.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("units", "--push", "FOLDER/store"), "--push and --sign-key belong together"),
        (("units", "--sign-key", "FOLDER/key"), "--push and --sign-key belong together"),
        (("units", "--units", "FOLDER/none"), "there is no such folder"),
        (("build", "--units", "FOLDER/none"), "there is no such folder"),
        (("verify", "--all", "FOLDER/none"), "there is no folder"),
        (("publish", "--to", "https://example.org/whl"), "only read from"),
        (("index", "--out", "ftp://example.org/whl"), "not an address of storage"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_written(
    tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        app([one.replace("FOLDER", str(tmp_path)) for one in options], standalone_mode=False)
    assert not list(tmp_path.iterdir())
