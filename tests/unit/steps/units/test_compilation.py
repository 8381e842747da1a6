from pathlib import Path

import pytest

from build_config.steps.units import compilation, object_cache, sandbox
from build_config.system.usage import Uses
from tests.support import factories

# As Ninja 1.13 and nvcc 13.0 print it.
FAILED = """[1/9] Building CXX object a.cpp.o
FAILED: [code=2] llama.cpp/ggml-cuda.dir/argmax.cu.o
/tk/bin/nvcc -Werror=all-warnings -x cu -c /src/argmax.cu -o llama.cpp/ggml-cuda.dir/argmax.cu.o
/src/argmax.cu(7): warning #177-D: variable "x" was declared but never referenced
/src/argmax.cu(12): error: identifier "undeclared" is undefined

1 error detected in the compilation of "/src/argmax.cu".
FAILED: [code=1] b.cu.o
/src/b.cu(1): error: another
ninja: build stopped: subcommand failed.
"""


def test_the_first_error_of_the_first_failing_file_is_named() -> None:
    message = compilation.first_error(FAILED)
    assert message.splitlines()[0] == "llama.cpp/ggml-cuda.dir/argmax.cu.o:"
    assert message.splitlines()[1].strip() == '/src/argmax.cu(12): error: identifier "undeclared" is undefined'


def test_a_failure_without_the_word_error_shows_its_last_lines() -> None:
    output = "FAILED: x.o\ng++ -c x.cpp -o x.o\nKilled\nninja: build stopped: subcommand failed."
    assert "Killed" in compilation.first_error(output)


def test_cmakes_first_error_is_shown_with_its_text() -> None:
    output = (
        "-- Detecting\n"
        "CMake Error at cmake/core.cmake:29 (message):\n"
        "  llama.cpp has no CPU variant named: no-such\n\n\n"
        "-- Configuring incomplete, errors occurred!\n"
    )
    told = ["  CMake Error at cmake/core.cmake:29 (message):", "  llama.cpp has no CPU variant named: no-such"]
    assert compilation.cmake_error(output).splitlines() == told


def test_compilers_see_nothing_of_the_users_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CPLUS_INCLUDE_PATH", "/evil")
    monkeypatch.setenv("NVCC_APPEND_FLAGS", "-G")
    environment = sandbox.environment(tmp_path / "path", factories.layout(tmp_path))
    assert set(environment) == {"PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "TZ"}
    assert environment["PATH"] == str(tmp_path / "path")
    assert Path(environment["HOME"]).is_dir()


def test_sccaches_statistics_are_read() -> None:
    text = (
        '{"stats":{"requests_not_cacheable":2,'
        '"cache_hits":{"counts":{"CUDA":3,"C/C++":4},"adv_counts":{}},'
        '"cache_misses":{"counts":{"CUDA (Device code)":5},"adv_counts":{}}}}'
    )
    assert object_cache.parse_sccache(text) == Uses(hits=7, asked=12)


def test_ccaches_statistics_are_read() -> None:
    assert object_cache.parse_ccache("direct_cache_hit\t3\npreprocessed_cache_hit\t1\ncache_miss\t5\n") == Uses(
        hits=4, asked=9
    )
