"""The wheel of llama.cpp's real core: what the wheel step makes of DLLs, and what it computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from build_config.formats import pe, wheelfile
from tests.support import reference_tokens

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.reference_tokens import Reference
    from tests.wine.real_wheel.conftest import Installed

pytestmark = [pytest.mark.wine, pytest.mark.long]

BROUGHT = "llama_cpp_python.libs/"
REFERENCES = reference_tokens.read()


def test_the_wheel_is_for_windows_and_brings_the_compilers_dlls_under_names_of_their_own(installed: Installed) -> None:
    assert installed.wheel.tags == ("py3-none-win_amd64",)
    members = wheelfile.read_contents(installed.wheel.path)
    dlls = {name: pe.read(data) for name, data in members.items() if name.endswith(".dll")}
    brought = {name.removeprefix(BROUGHT): dll for name, dll in dlls.items() if name.startswith(BROUGHT)}
    assert {name.partition("-")[0] for name in brought} == {"libgcc_s_seh", "libgomp", "libstdc++", "libwinpthread"}
    needed = {name for dll in dlls.values() for name in dll.needed}
    assert {name for name in needed if name.startswith("lib")} == {name.lower() for name in brought}
    assert "cublas64_13.dll" in dlls["llama_cpp/lib/ggml-cuda-sm89.dll"].needed
    assert not any("cublas" in name for name in members)


@pytest.mark.parametrize("reference", REFERENCES, ids=lambda one: f"{one.shape}-{one.family}-{one.kind}")
def test_the_tokens_are_those_of_the_wheel_for_linux(
    installed: Installed, reference: Reference, tmp_path: Path
) -> None:
    model = installed.path(reference.write(tmp_path / "model.gguf"))
    code = reference_tokens.GENERATE.format(model=model, tokens=len(reference.tokens))
    seen = installed.answer(code)
    assert tuple(seen["tokens"]) == reference.tokens
    assert seen["status"]["cpu_variant"] == "haswell"
