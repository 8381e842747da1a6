"""Where the requirements of a clean environment come from."""

from pathlib import Path

import pytest

from build_config.errors import ValidationError
from build_config.system.layout import PACKAGE
from build_config.system.processes import Command, Completed
from build_config.testbed import clean_environment
from tests.support import wheels


@pytest.mark.parametrize(
    ("required", "lock"),
    [
        ("nvidia-cublas>=13.0,<14", "validation.txt"),
        ("nvidia-cublas-cu12>=12.4,<13", "validation-cu12.txt"),
        ("nvidia_cuda_runtime_cu11>=11.8,<12", "validation-cu11.txt"),
        ("numpy", "validation.txt"),
    ],
)
def test_a_wheel_is_validated_with_the_libraries_of_its_own_cuda(tmp_path: Path, required: str, lock: str) -> None:
    locks = PACKAGE / "data" / "locks"
    metadata = f"Metadata-Version: 2.1\nName: x\nVersion: 1\nRequires-Dist: {required}\n\n".encode()
    wheel = wheels.write(tmp_path, {"x-1.dist-info/METADATA": metadata})
    assert clean_environment.requirements(wheel, locks) == locks / lock
    with pytest.raises(ValidationError, match="no lock contains them"):
        clean_environment.requirements(
            wheels.write(
                tmp_path, {"x-1.dist-info/METADATA": metadata.replace(required.encode(), b"nvidia-cublas-cu10")}
            ),
            locks,
        )


def test_a_wheel_at_a_relative_path_is_found_although_pip_runs_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Command] = []

    def run(command: Command, **_: object) -> Completed:
        started.append(command)
        return Completed(command=command, returncode=0, output="", seconds=0.0)

    monkeypatch.setattr(clean_environment, "run", run)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wheelhouse").mkdir()
    wheel = wheels.write(Path("wheelhouse"), {"x-1.dist-info/METADATA": b"Name: x\n"})
    (tmp_path / "bin").mkdir()
    clean_environment.install(wheel, wheel.path.parent, tmp_path / "bin" / "python", tmp_path / "log")
    assert str(tmp_path / "wheelhouse") in started[0].argv


def test_locked_requirements_are_split_into_downloaded_and_others(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(
        "# made by a tool\n"
        "nvidia-cublas==13.0.2.14 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
        "    # via a wheel\n"
        "numpy==2.4.6 ; python_full_version < '3.12' \\\n    --hash=sha256:cc\n"
        "nvidia-cuda-runtime==13.0.96 \\\n    --hash=sha256:dd\n",
        encoding="utf-8",
    )
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    (downloads / "nvidia_cublas-13.0.2.14-py3-none-manylinux_2_27_x86_64.whl").touch()
    (downloads / "nvidia_cuda_runtime-13.0.48-py3-none-manylinux2014_x86_64.whl").touch()
    held, others = tmp_path / "held.txt", tmp_path / "others.txt"
    clean_environment._split(lock, downloads, held, others)
    assert [line.split()[0] for line in held.read_text().splitlines()] == ["nvidia-cublas==13.0.2.14"]
    assert held.read_text().count("--hash") == 2
    left = [line.split()[0] for line in others.read_text().splitlines()]
    assert left == ["numpy==2.4.6", "nvidia-cuda-runtime==13.0.96"]
    assert "python_full_version < '3.12'" in others.read_text()
