"""The Wine of `nox -s wine` itself: a genuine Windows Python, its folders, users and ends."""

from __future__ import annotations

import cmath
import contextlib
import json
import subprocess
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from build_config.errors import CommandError
from build_config.system import processes

if TYPE_CHECKING:
    from pathlib import Path

    from ci.wine.windows import Prefix, Windows

pytestmark = pytest.mark.wine

FACTS = """
import getpass, json, os, pathlib, platform, sys
print(json.dumps([sys.platform, platform.machine(), sys.executable, getpass.getuser(), str(pathlib.Path.home()),
                  os.getcwd(), os.cpu_count(), sorted(os.environ)]))
"""


def python(prefix: Prefix, code: str, folder: Path) -> str:
    changes = {"PYTHONUTF8": "1"}  # the code page of a pipe is that of Western Europe
    return prefix.run("python", "-c", code, folder=folder, changes=changes, timeout=600).output


def test_windows_python_runs_in_a_folder_of_this_machine(prefix: Prefix, tmp_path: Path) -> None:
    system, machine, executable, user, home, folder, cores, variables = json.loads(python(prefix, FACTS, tmp_path))

    assert (system, machine) == ("win32", "AMD64")
    assert executable == r"C:\Python\python.exe"
    assert (user, home) == ("builder", r"C:\users\builder")
    assert folder == prefix.windows_path(tmp_path)
    assert cores == psutil.cpu_count()
    assert not {"PYTEST_CURRENT_TEST", "NOX_CURRENT_SESSION"} & set(variables), "variables of this machine"


def test_both_sides_see_the_same_files(prefix: Prefix, tmp_path: Path) -> None:
    (tmp_path / "from Linux ü").write_text("1", encoding="utf-8")
    code = "import os; print(os.listdir('.')); open('from Windows', 'w').close(); open('C:/drive', 'w').close()"

    assert "from Linux ü" in python(prefix, code, tmp_path)
    assert (tmp_path / "from Windows").is_file()
    assert (prefix.drive_c / "drive").is_file()
    assert prefix.windows_path(prefix.drive_c / "drive") == r"C:\drive"


def test_each_prefix_is_a_windows_of_its_own_with_its_user(windows: Windows, prefix: Prefix, tmp_path: Path) -> None:
    (prefix.drive_c / "only here").touch()
    with windows.prefix(tmp_path / "prefix", user="Jörg Müller") as other:
        *_, home, _, _, _ = json.loads(python(other, FACTS, tmp_path))
        assert home == r"C:\users\Jörg Müller"
        assert not (other.drive_c / "only here").exists()


@pytest.mark.parametrize("path", [r"C:\Python\new", r"C:\Python\Lib\site-packages\new", r"Z:\usr\new"])
def test_what_all_prefixes_share_cannot_be_changed(prefix: Prefix, tmp_path: Path, path: str) -> None:
    with pytest.raises(CommandError, match=r"PermissionError|OSError"):
        python(prefix, f"open({path!r}, 'w')", tmp_path)


def test_a_status_comes_back(prefix: Prefix) -> None:
    assert prefix.run("python", "-c", "raise SystemExit(7)", check=False).returncode == 7


@pytest.mark.parametrize("kind", ["complex64", "complex128"])
def test_numpy_computes_with_complex_numbers(prefix: Prefix, tmp_path: Path, kind: str) -> None:
    """numpy imports them from a runtime in which Wine has stubs."""
    code = f"import numpy as np; z = np.array([3+4j], dtype='{kind}'); print(*abs(z), *np.exp(z), *np.power(z, 2.5))"
    z = complex(3, 4)

    found = [complex(number) for number in python(prefix, code, tmp_path).split()]
    assert found == pytest.approx([5, cmath.exp(z), z**2.5], rel=1e-5)


def test_the_compilers_make_a_program_that_runs(prefix: Prefix, tmp_path: Path) -> None:
    source = '#include <iostream>\nint main() { std::cout << "hello" << std::endl; }'
    (tmp_path / "hello.cpp").write_text(source, encoding="utf-8")
    gcc = prefix.tree.command("x86_64-w64-mingw32ucrt-g++", "-static", "hello.cpp", "-o", "hello.exe", folder=tmp_path)
    processes.run(gcc)

    assert prefix.run(prefix.windows_path(tmp_path / "hello.exe")).output == "hello"
    assert (
        "-pc-windows-msvc"
        in processes.run(
            prefix.tree.command("clang", "--target=x86_64-pc-windows-msvc", "-E", "-v", "-x", "c", "/dev/null")
        ).output
    )


def test_nothing_runs_on_after_a_prefix(windows: Windows, tmp_path: Path) -> None:
    """Wine's programs are no children of the one that started them: an interruption would leave them running."""
    sleep = "import time; time.sleep(600)"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {sleep!r}])"
    with windows.prefix(tmp_path / "prefix") as other:
        command = other.command("python", "-c", code)
        with subprocess.Popen(command.argv, env=command.environment) as started:
            deadline = time.monotonic() + 300
            while not (running := sleeping(other)) and time.monotonic() < deadline:
                time.sleep(0.1)
            other.stop()
            started.wait(300)
        assert running
        assert command_lines(other) == []


def sleeping(prefix: Prefix) -> bool:
    """Whether the program of the program runs: the code of the first one contains that of the second."""
    return any("time.sleep" in line and "Popen" not in line for line in command_lines(prefix))


def test_a_program_that_has_just_started_does_not_wait_for_a_server_that_was_stopped(
    windows: Windows, tmp_path: Path
) -> None:
    with windows.prefix(tmp_path / "prefix") as other:
        command = other.command("python", "-c", "import time; time.sleep(600)")
        with subprocess.Popen(command.argv, env=command.environment) as started:
            deadline = time.monotonic() + 300
            while not command_lines(other) and time.monotonic() < deadline:
                time.sleep(0.01)
            other.stop()
            started.wait(300)
        assert command_lines(other) == []


def test_a_program_with_a_window_starts_one_desktop(prefix: Prefix) -> None:
    """A desktop that cannot start would start another one, and that one the next."""
    code = "import ctypes; print(bool(ctypes.windll.user32.GetDesktopWindow())); input()"
    command = prefix.command("python", "-u", "-c", code)
    pipe = subprocess.PIPE
    with subprocess.Popen(command.argv, env=command.environment, stdin=pipe, stdout=pipe, encoding="utf-8") as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "True\n"
        time.sleep(2)  # an endless chain would have several by then
        desktops = [line for line in command_lines(prefix) if "explorer.exe" in line]
        program.communicate("\n", timeout=300)
    assert len(desktops) == 1


def command_lines(prefix: Prefix) -> list[str]:
    lines = []
    for process in prefix.programs():
        with contextlib.suppress(psutil.Error):
            lines.append(" ".join(process.cmdline()))
    return lines
