"""The newest wheel generates the tokens that tests under Wine compare those of a wheel for Windows with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.integration.conftest import run
from tests.support import reference_tokens

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.reference_tokens import Reference

pytestmark = pytest.mark.wheel

REFERENCES = reference_tokens.read()


@pytest.mark.parametrize("reference", REFERENCES, ids=lambda one: f"{one.shape}-{one.family}-{one.kind}")
def test_the_wheel_generates_the_recorded_tokens(python: Path, reference: Reference, tmp_path: Path) -> None:
    model = reference.write(tmp_path / "model.gguf")
    code = reference_tokens.GENERATE.format(model=str(model), tokens=len(reference.tokens))
    done = run(python, "-I", "-c", f"{code}print(json.dumps(answer))")
    assert done.returncode == 0, done.stderr
    assert tuple(json.loads(done.stdout.splitlines()[-1])["tokens"]) == reference.tokens
