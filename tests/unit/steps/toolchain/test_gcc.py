from pathlib import Path

import pytest

from build_config.errors import CompilerMissingError, PipelineError, SettingsError, ToolkitMissingError
from build_config.steps.toolchain import gcc

HEADER = """
#if defined(__GNUC__)

#if __GNUC__ > 15

#error -- unsupported GNU version! gcc versions later than 15 are not supported!
#endif /* __GNUC__ > 15 */
#endif
"""


def header(root: Path, text: str) -> Path:
    (root / "include" / "crt").mkdir(parents=True)
    (root / "include" / "crt" / "host_config.h").write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("text", "limit"),
    [(HEADER, 15), ("#if __GNUC__ > 11\n", 11), ("  #  if __GNUC__ > 8 || (__GNUC__ == 8 && __GNUC_MINOR__ > 3)\n", 8)],
)
def test_the_limit_is_read_from_the_toolkits_own_header_in_old_spellings_too(
    tmp_path: Path, text: str, limit: int
) -> None:
    assert gcc.supported_major(header(tmp_path, text)) == limit


@pytest.mark.parametrize("text", ["// empty\n", "#if defined(__GNUC__)\n"])
def test_a_header_that_says_nothing_is_an_incomplete_toolkit(tmp_path: Path, text: str) -> None:
    with pytest.raises(ToolkitMissingError, match="does not say which GCC"):
        gcc.supported_major(header(tmp_path, text))


@pytest.mark.parametrize(
    ("environ", "error", "said", "remedy"),
    [
        ({"PATH": "/none"}, CompilerMissingError, r"no C\+\+ compiler", "sudo apt install g++"),
        ({"PATH": ""}, CompilerMissingError, r"no C\+\+ compiler", "sudo dnf install gcc-c++"),
        ({}, CompilerMissingError, r"no C\+\+ compiler", ""),  # not what is in the usual folders
        ({"PATH": "/usr/bin:/bin", "CXX": "/no/such/g++"}, CompilerMissingError, r"CXX=/no/such/g\+\+", "unset CXX"),
        ({"PATH": "/usr/bin", "CXX": "ccache g++"}, SettingsError, "must name the compiler only", "--launcher ccache"),
    ],
)
def test_a_compiler_that_is_not_there_is_named_with_the_remedy_and_not_replaced_by_another(
    environ: dict[str, str], error: type[PipelineError], said: str, remedy: str
) -> None:
    with pytest.raises(error, match=said) as caught:
        gcc.choose(15, environ)
    assert remedy in str(caught.value.remedy)
    assert (caught.value.exit_code == 10) is (error is CompilerMissingError)
