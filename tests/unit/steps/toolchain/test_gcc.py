from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from build_config.errors import CompilerMissingError, SettingsError, ToolkitMissingError
from build_config.steps.toolchain import gcc

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

HEADER = """
#if defined(__GNUC__)

#if __GNUC__ > 15

#error -- unsupported GNU version! gcc versions later than 15 are not supported!
#endif /* __GNUC__ > 15 */
#endif
"""


def test_the_limit_is_read_from_the_toolkits_own_header(tmp_path: Path) -> None:
    header = tmp_path / "include" / "crt" / "host_config.h"
    header.parent.mkdir(parents=True)
    header.write_text(HEADER, encoding="utf-8")
    assert gcc.supported_major(tmp_path) == 15


def test_older_spellings_of_the_limit() -> None:
    assert gcc.parse_limit("#if __GNUC__ > 11\n") == 11
    assert gcc.parse_limit("  #  if __GNUC__ > 8 || (__GNUC__ == 8 && __GNUC_MINOR__ > 3)\n") == 8
    assert gcc.parse_limit("#if defined(__GNUC__)\n") is None


def test_a_header_that_says_nothing_is_an_incomplete_toolkit(tmp_path: Path) -> None:
    header = tmp_path / "include" / "crt" / "host_config.h"
    header.parent.mkdir(parents=True)
    header.write_text("// empty\n", encoding="utf-8")
    with pytest.raises(ToolkitMissingError, match="does not say which GCC"):
        gcc.supported_major(tmp_path)


def test_without_any_compiler_the_package_is_named(tmp_path: Path) -> None:
    with pytest.raises(CompilerMissingError, match="no C\\+\\+ compiler") as caught:
        gcc.choose(15, {"PATH": str(tmp_path)})
    assert caught.value.exit_code == 10
    assert "sudo apt install g++" in str(caught.value.remedy)
    assert "sudo dnf install gcc-c++" in str(caught.value.remedy)


def test_an_empty_path_does_not_fall_back_to_the_usual_folders() -> None:
    for environ in ({}, {"PATH": ""}):
        with pytest.raises(CompilerMissingError):
            gcc.choose(15, environ)


def test_a_compiler_that_was_asked_for_is_not_replaced_by_another() -> None:
    with pytest.raises(CompilerMissingError, match=r"CXX=/no/such/g\+\+"):
        gcc.choose(15, {"PATH": "/usr/bin:/bin", "CXX": "/no/such/g++"})


def test_flags_do_not_belong_into_cxx() -> None:
    with pytest.raises(SettingsError, match="must name the compiler only") as caught:
        gcc.choose(15, {"PATH": "/usr/bin", "CXX": "ccache g++"})
    assert "--launcher ccache" in str(caught.value.remedy)
