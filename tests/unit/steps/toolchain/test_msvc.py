"""Visual C++ found and used, against recorded answers (tests/windows says where their shapes come from)."""

import contextlib
import subprocess
from pathlib import Path, PureWindowsPath
from typing import Any

import pytest

from build_config.errors import CompilerMissingError, CompilerUnsupportedError, PipelineError, ToolkitMissingError
from build_config.steps.toolchain.windows import msvc
from tests.support import windows_machine
from tests.support.windows_machine import BUILD_TOOLS, COMMUNITY_2019, COMMUNITY_2026, USER_ENVIRONMENT, RecordedMachine

CUDA_13_0 = range(1920, 1950)
ALL = (BUILD_TOOLS, COMMUNITY_2019, COMMUNITY_2026)


@pytest.fixture
def machine() -> RecordedMachine:
    return RecordedMachine()


@pytest.mark.parametrize(
    ("text", "accepted"),
    [(windows_machine.record("host_config-13.0.txt"), CUDA_13_0), ("#if _MSC_VER >= 1500\n", None), (None, None)],
    ids=["13.0", "no range", "no header"],
)
def test_the_range_of_a_toolkit_is_read_from_its_header_and_not_guessed_at(
    tmp_path: Path, text: str | None, accepted: range | None
) -> None:
    (tmp_path / "include" / "crt").mkdir(parents=True)
    if text is not None:
        (tmp_path / "include" / "crt" / "host_config.h").write_text(text)
    with contextlib.nullcontext() if accepted else pytest.raises(ToolkitMissingError):
        assert msvc.supported(tmp_path) == accepted


def test_every_call_of_the_search_with_its_whole_environment(machine: RecordedMachine) -> None:
    msvc.find(CUDA_13_0, USER_ENVIRONMENT, machine)
    bare = {
        "SystemRoot": r"C:\Windows",
        "SystemDrive": "C:",
        "ProgramFiles": r"C:\Program Files",
        "ProgramFiles(x86)": r"C:\Program Files (x86)",
        "ProgramW6432": r"C:\Program Files",
        "ProgramData": r"C:\ProgramData",
        "ComSpec": r"C:\Windows\System32\cmd.exe",
        "Path": r"C:\Windows\System32;C:\Windows;C:\Windows\System32\Wbem;C:\Windows\System32\WindowsPowerShell\v1.0",
        "PATHEXT": ".COM;.EXE;.BAT;.CMD",
        "PROCESSOR_ARCHITECTURE": "AMD64",
        "TEMP": r"C:\Users\jörg\AppData\Local\Temp",
        "TMP": r"C:\Users\jörg\AppData\Local\Temp",
        "VSCMD_SKIP_SENDTELEMETRY": "1",
        "VSLANG": "1033",
    }
    programs = rf"{BUILD_TOOLS}\VC\Tools\MSVC\14.44.35207\bin\Hostx64\x64"
    (vswhere, vcvars, cl, link) = machine.calls
    assert vswhere == ((windows_machine.VSWHERE, *msvc.QUERY), bare, None)
    requires = "-requires Microsoft.VisualStudio.Component.VC.Tools.x86.x64"
    assert " ".join(msvc.QUERY) == f"-all -products * {requires} -format json -utf8"
    vcvarsall = rf"{BUILD_TOOLS}\VC\Auxiliary\Build\vcvarsall.bat"
    script = Path(msvc.__file__).parent
    assert vcvars == ((bare["ComSpec"], "/d", "/c", "vcvars.bat", vcvarsall, "14.44.35207"), bare, script)
    assert cl[0] == (rf"{programs}\cl.exe",)
    assert link[0] == (rf"{programs}\link.exe",)
    assert cl[1] == link[1]
    assert cl[1]["INCLUDE"].startswith(rf"{BUILD_TOOLS}\VC\Tools\MSVC\14.44.35207\include;")


def test_the_command_line_that_cmd_gets_begins_without_a_quote() -> None:
    """``cmd /c`` removes the first and the last quote when the text begins with one and holds more than two."""
    toolset = msvc.Toolset(
        installation=msvc.Installation(name="x", path=BUILD_TOOLS, version="17.14"), version="14.44.35207"
    )
    line = subprocess.list2cmdline(msvc.script_arguments(toolset, {"ComSpec": r"C:\Windows\System32\cmd.exe"}))
    assert line == (
        r"C:\Windows\System32\cmd.exe /d /c vcvars.bat "
        r'"C:\Program Files (x86)\Microsoft Visual Studio\2022\BuildTools\VC\Auxiliary\Build\vcvarsall.bat" 14.44.35207'
    )


def test_our_script_is_there_and_has_the_line_ends_that_cmd_wants() -> None:
    script = (Path(msvc.__file__).parent / msvc.SCRIPT).read_bytes()
    assert script.count(b"\r\n") == script.count(b"\n")
    assert f"echo {msvc.MARKER}".encode() in script


def test_the_compiler_with_its_environment(machine: RecordedMachine) -> None:
    host = msvc.find(CUDA_13_0, USER_ENVIRONMENT, machine)
    assert host.cc == host.cxx
    assert host.cxx.version == "19.44.35219"
    assert host.cxx.path.as_posix() == (
        "C:/Program Files (x86)/Microsoft Visual Studio/2022/BuildTools/VC/Tools/MSVC/14.44.35207"
        "/bin/Hostx64/x64/cl.exe"
    )
    assert host.cxx.found_via == "vswhere: Visual Studio Build Tools 2022"
    assert host.binutils == "Microsoft Incremental Linker 14.44.35219.0"
    assert host.system == (("windows sdk", "10.0.26100.0"), ("ucrt", "10.0.26100.0"))
    environment = dict(host.environment)
    assert {"INCLUDE", "LIB", "LIBPATH", "Path", "VCToolsInstallDir", "WindowsSdkDir"} <= set(environment)
    assert not {"TEMP", "SystemRoot", "PROMPT", "VSCMD_ARG_TGT_ARCH", "__DOTNET_ADD_64BIT"} & set(environment)


def test_nvcc_sees_that_the_environment_of_the_chosen_toolset_is_set_up(machine: RecordedMachine) -> None:
    """Without this variable it runs ``vcvars64.bat`` for each file, which sets up the newest toolset."""
    assert dict(msvc.find(CUDA_13_0, USER_ENVIRONMENT, machine).environment)["VSCMD_VER"] == "17.14.28"


def test_nothing_of_the_users_own_reaches_the_compiler(machine: RecordedMachine) -> None:
    host = msvc.find(CUDA_13_0, USER_ENVIRONMENT, machine)
    for environment in (dict(host.environment), *(call[1] for call in machine.calls)):
        assert not {"CL", "_CL_", "LINK", "CMAKE_GENERATOR"} & set(environment)
        assert not any("Strawberry" in value or "mine" in value for value in environment.values())


@pytest.mark.parametrize(
    ("accepted", "there", "toolset", "installation"),
    [
        (CUDA_13_0, ALL, "14.44.35207", BUILD_TOOLS),  # not 14.50, although it is newer
        (range(1910, 1940), ALL, "14.29.30133", BUILD_TOOLS),  # an older toolset next to the newest one
        (range(1920, 1960), ALL, "14.50.35717", COMMUNITY_2026),
        (None, ALL, "14.50.35717", COMMUNITY_2026),
        (CUDA_13_0, (COMMUNITY_2019,), "14.29.30133", COMMUNITY_2019),
    ],
)
def test_the_newest_toolset_that_the_toolkit_accepts(
    accepted: range | None, there: tuple[PureWindowsPath, ...], toolset: str, installation: PureWindowsPath
) -> None:
    machine = RecordedMachine()
    machine.toolsets = {one: machine.toolsets[one] for one in there}
    msvc.find(accepted, USER_ENVIRONMENT, machine)
    script = next(call[0] for call in machine.calls if call[0][0].endswith("cmd.exe"))
    assert script[4:] == (rf"{installation}\VC\Auxiliary\Build\vcvarsall.bat", toolset)


INSTALL = (
    'winget install Microsoft.VisualStudio.2022.BuildTools --override "--passive --wait '
    "--add Microsoft.VisualStudio.Workload.VCTools"
)
NO_TOOLSET = "[ERROR:vcvars.bat] Toolset directory for version '14.44.35207' was not found.\n"


@pytest.mark.parametrize(
    ("changes", "error", "said", "remedy"),
    [
        (
            {"toolsets": {COMMUNITY_2026: ("14.50.35717",)}},
            CompilerUnsupportedError,
            r"14\.50\.35717 .*_MSC_VER 1920 to 1949, which is 14\.20 to 14\.49",
            f'"{COMMUNITY_2026}" --add Microsoft.VisualStudio.Component.VC.14.44.17.14.x86.x64',
        ),
        *(
            ({"vswhere": answer}, CompilerMissingError, said, INSTALL)
            for answer, said in ((None, "Visual Studio is not installed"), ("", "no Visual C"), ("[]", "no Visual C"))
        ),
        *(
            ({"vswhere": answer}, CompilerMissingError, "does not list the installations", "repair Visual Studio")
            for answer in ("vswhere: error 0x57", '{"a": 1}', '[{"displayName": "x"}]')
        ),
        ({"vcvarsall": NO_TOOLSET}, CompilerMissingError, "was not found", str(BUILD_TOOLS)),
    ],
)
def test_what_prevents_a_build_is_told_with_what_to_install(
    changes: dict[str, Any], error: type[PipelineError], said: str, remedy: str
) -> None:
    with pytest.raises(error, match=said) as caught:
        msvc.find(CUDA_13_0, USER_ENVIRONMENT, RecordedMachine(**changes))
    assert remedy in str(caught.value.remedy)


def test_installations_that_were_not_finished_are_left_out() -> None:
    names = [one.name for one in msvc.parse_vswhere(windows_machine.record("vswhere.json"))]
    assert names == ["Visual Studio Community 2026", "Visual Studio Build Tools 2022", "Visual Studio Community 2019"]


def test_the_runtime_comes_from_the_redistributable_folder_of_the_toolset(
    machine: RecordedMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    redist = rf"{BUILD_TOOLS}\VC\Redist\MSVC\14.44.35112\x64"
    host = msvc.find(CUDA_13_0, USER_ENVIRONMENT, machine)
    there = {redist: tuple(f"Microsoft.VC143.{name}" for name in ("CRT", "CXXAMP", "MFC", "OpenMP"))}
    monkeypatch.setattr(machine, "names", lambda folder: there[str(folder)])
    folders = [str(folder) for folder in msvc.runtime_folders(host, machine)]
    assert folders == [rf"{redist}\Microsoft.VC143.CRT", rf"{redist}\Microsoft.VC143.OpenMP"]


@pytest.mark.parametrize("language", ["en", "de"])
def test_the_version_is_read_in_any_language(language: str) -> None:
    assert msvc.parse_banner(windows_machine.record(f"cl-{language}.txt")) == "19.44.35219"


def test_names_of_variables_are_the_same_in_any_case() -> None:
    assert msvc.difference({"Path": "a", "TEMP": "t"}, {"PATH": "a", "temp": "u", "PROMPT": "$P"}) == {"temp": "u"}


def test_a_value_may_hold_an_equals_sign_and_lines_before_the_marker_do_not_count() -> None:
    assert msvc.parse_set(f"A=1\n{msvc.MARKER}\nB=x=y\n\n=C:=C:\\\n") == {"B": "x=y"}
