"""The PEP 517 backend: config settings are the options of the build."""

import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from build_config import build_backend
from build_config.commands import app
from build_config.system.layout import PACKAGE


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, []),
        ({"arch": "86,89", "cuda": "13.0"}, ["--arch=86,89", "--cuda=13.0"]),
        ({"--jobs": "2"}, ["--jobs=2"]),
        ({"require-gpu": ""}, ["--require-gpu"]),
        ({"arch": ["86", "89"]}, ["--arch=86", "--arch=89"]),
    ],
)
def test_settings_are_options(settings: "build_backend.Settings", expected: list[str]) -> None:
    assert build_backend.options(settings) == expected


def test_the_options_that_it_passes_are_those_of_the_build() -> None:
    said = CliRunner().invoke(app, ["build", "--help"], env={"COLUMNS": "200"}).output
    assert all(option in said for option in ("--arch", "--cuda", "--jobs", "--require-gpu", "--copy-to"))


def test_front_ends_find_it_and_install_nothing_for_it() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["build-system"] == {"requires": [], "build-backend": build_backend.__name__, "backend-path": ["."]}
    assert build_backend.get_requires_for_build_wheel() == []


def test_a_source_distribution_is_refused_with_the_other_way(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--wheel"):
        build_backend.build_sdist(str(tmp_path))


def test_an_old_python_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    with pytest.raises(SystemExit, match=r"Python 3\.11 or later"):
        build_backend.build_wheel(str(tmp_path))


def test_cibuildwheel_takes_the_wheel_as_the_build_made_it() -> None:
    """Its own repair would give bytes that nothing was said of."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    config = project["tool"]["cibuildwheel"]
    commands = [*config["linux"]["repair-wheel-command"], config["windows"]["repair-wheel-command"]]
    assert not any(tool in command for command in commands for tool in ("auditwheel", "delvewheel"))
    assert [identifier.partition("-")[0] for identifier in config["build"]] == ["cp311", "cp311"]


def test_the_wheel_is_not_made_with_what_the_front_end_set_for_this_backend() -> None:
    """``build`` found no scikit-build-core: it looked for it in the backend-path of the outer project."""
    variables = {
        "_PYPROJECT_HOOKS_BACKEND_PATH": "/checkout",
        "_PYPROJECT_HOOKS_BACKEND_PATH_JSON": '["/checkout"]',
        "_PYPROJECT_HOOKS_BUILD_BACKEND": "build_config.build_backend",
        "PYTHONPATH": "/pip-build-env/site",
        "PIP_INDEX_URL": "https://example.invalid/simple",
    }
    assert build_backend.without_front_end(variables) == {"PIP_INDEX_URL": "https://example.invalid/simple"}
