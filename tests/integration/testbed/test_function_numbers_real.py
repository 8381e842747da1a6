"""The numbers of CUDA's functions in NVIDIA's own cudart.lib for Windows."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from build_config.errors import ValidationError
from build_config.steps import locks
from build_config.system.layout import PACKAGE, Layout
from build_config.testbed import simulated_device
from build_config.testbed.simulated_device import function_numbers
from tests.integration.conftest import locked_wheel

pytestmark = pytest.mark.integration

LAYOUT = Layout(checkout=PACKAGE.parent, work_root=Path("/nowhere"))


@pytest.fixture(name="library", scope="module")
def _library() -> bytes:
    files = locks.read_toolkit_lock(LAYOUT, "13.0", "win-amd64").files
    (file,) = (file for file in files if file.name == "nvidia-cuda-runtime")
    with zipfile.ZipFile(locked_wheel(file)) as archive:
        (member,) = (name for name in archive.namelist() if name.endswith("/cudart.lib"))
        return archive.read(member)


def test_each_function_of_the_double_has_a_number_of_its_own(library: bytes) -> None:
    numbers = function_numbers.read(library)
    (runtime,) = (double for double in simulated_device.doubles(13) if double.name == "cudart")
    assert [name for name in runtime.exported if name not in numbers] == []
    assert len({numbers[name] for name in runtime.exported}) == len(runtime.exported)


def test_a_library_of_another_form_is_refused(library: bytes) -> None:
    with pytest.raises(ValidationError, match="another form"):
        function_numbers.read(library.replace(b"getFunction", b"getAnything"))
    with pytest.raises(ValidationError, match="not a library"):
        function_numbers.read(b"MZ")
