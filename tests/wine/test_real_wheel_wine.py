"""The wheel of llama.cpp's real core: what the wheel step makes, what pip installs, and what it computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from build_config.formats import pe, wheelfile
from tests.support import reference_tokens

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.model import Wheel
    from tests.support.reference_tokens import Reference
    from tests.wine.conftest import Environment

GENERATE = reference_tokens.GENERATE
RUNTIME = "llama_cpp_python.libs/"


def test_the_wheel_has_a_tag_for_windows_and_brings_the_compilers_dlls_under_names_of_their_own(wheel: Wheel) -> None:
    assert wheel.tags == ("py3-none-win_amd64",)
    members = wheelfile.read_contents(wheel.path)
    brought = {name.removeprefix(RUNTIME) for name in members if name.startswith(RUNTIME)}
    assert {name.partition("-")[0] for name in brought if name.endswith(".dll")} == {
        *("libgcc_s_seh", "libgomp", "libstdc++", "libwinpthread"),
    }
    core = pe.read(members["llama_cpp/lib/ggml-cpu-haswell.dll"])
    assert {name for name in core.needed if name.startswith("lib")} <= {name.lower() for name in brought}


@pytest.mark.parametrize(
    "reference", reference_tokens.read(), ids=lambda one: f"{one.shape}-{one.family}-{one.kind}"
)
def test_the_tokens_are_those_of_the_wheel_for_linux(
    environment: Environment, reference: Reference, tmp_path: Path
) -> None:
    model = reference.write(tmp_path / "model.gguf")
    seen = environment.answer(GENERATE.format(model=str(model), tokens=len(reference.tokens)))
    assert tuple(seen["tokens"]) == reference.tokens
    assert seen["status"]["cpu_variant"] == "haswell"
