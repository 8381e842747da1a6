"""What is printed for a reader that has gone: the process ends by itself and says nothing of it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from build_config.system.layout import PACKAGE

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("method", ["raw", "note"])
def test_a_reader_that_has_gone_ends_it_quietly(method: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    code = f"from build_config.system.console import Console; Console().{method}('text')"
    argv = [sys.executable, "-c", code]
    ended = subprocess.run(argv, cwd=PACKAGE.parent, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)

    assert (ended.returncode, ended.stderr) == (1, "")
