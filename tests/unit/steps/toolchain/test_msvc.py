"""Visual C++ found and used, against recorded answers (tests/windows says where their shapes come from)."""

from __future__ import annotations

import subprocess
from pathlib import Path, PureWindowsPath

import pytest

from build_config.errors import CompilerMissingError, CompilerUnsupportedError, ToolkitMissingError
from build_config.steps.toolchain.windows import msvc
from tests.support import windows_machine
from tests.support.windows_machine import BUILD_TOOLS, COMMUNITY_2019, COMMUNITY_2026, USER_ENVIRONMENT, RecordedMachine

pytestmark = pytest.mark.unit
CUDA_13_0 = range(1920, 1950)


@pytest.fixture
def machine() -> RecordedMachine:
    return RecordedMachine()


def test_the_range_of_the_locked_toolkit_is_read_from_its_header(tmp_path: Path) -> None:
    header = tmp_path / "include" / "crt" / "host_config.h"
    header.parent.mkdir(parents=True)
    header.write_text(windows_machine.record("host_config-13.0.txt"))
    assert msvc.supported(tmp_path) == CUDA_13_0


@pytest.mark.parametrize("text", [None, "#if _MSC_VER >= 1500\n"])
def test_a_toolkit_that_does_not_say_its_range_is_not_guessed_at(tmp_path: Path, text: str | None) -> None:
    header = tmp_path / "include" / "crt" / "host_config.h"
    header.parent.mkdir(parents=True)
    if text is not None:
        header.write_text(text)
    with pytest.raises(ToolkitMissingError):
        msvc.supported(tmp_path)


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
    assert msvc.QUERY == (
        "-all",
        "-products",
        "*",
        "-requires",
        "Microsoft.VisualStudio.Component.VC.Tools.x86.x64",
        "-format",
        "json",
        "-utf8",
    )
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
    assert not {"TEMP", "SystemRoot", "PROMPT", "VSCMD_VER", "__DOTNET_ADD_64BIT"} & set(environment)


def test_nothing_of_the_users_own_reaches_the_compiler(machine: RecordedMachine) -> None:
    host = msvc.find(CUDA_13_0, USER_ENVIRONMENT, machine)
    for environment in (dict(host.environment), *(call[1] for call in machine.calls)):
        assert not {"CL", "_CL_", "LINK", "CMAKE_GENERATOR"} & set(environment)
        assert not any("Strawberry" in value or "mine" in value for value in environment.values())


@pytest.mark.parametrize(
    ("accepted", "toolset", "installation"),
    [
        (CUDA_13_0, "14.44.35207", BUILD_TOOLS),  # not 14.50, although it is newer
        (range(1910, 1940), "14.29.30133", BUILD_TOOLS),  # an older toolset beside the newest one
        (range(1920, 1960), "14.50.35717", COMMUNITY_2026),
        (None, "14.50.35717", COMMUNITY_2026),
    ],
)
def test_the_newest_toolset_that_the_toolkit_accepts(
    machine: RecordedMachine, accepted: range | None, toolset: str, installation: PureWindowsPath
) -> None:
    msvc.find(accepted, USER_ENVIRONMENT, machine)
    script = next(call[0] for call in machine.calls if call[0][0].endswith("cmd.exe"))
    assert script[4:] == (rf"{installation}\VC\Auxiliary\Build\vcvarsall.bat", toolset)


def test_visual_studio_2019_alone_will_do(machine: RecordedMachine) -> None:
    machine.toolsets = {COMMUNITY_2019: ("14.29.30133",)}
    msvc.find(CUDA_13_0, USER_ENVIRONMENT, machine)
    assert str(COMMUNITY_2019) in machine.calls[1][0][4]


def test_only_a_newer_visual_studio_is_refused_with_the_component_to_add(machine: RecordedMachine) -> None:
    machine.toolsets = {COMMUNITY_2026: ("14.50.35717",)}
    with pytest.raises(
        CompilerUnsupportedError, match=r"14\.50\.35717 .*_MSC_VER 1920 to 1949, which is 14\.20 to 14\.49"
    ) as refused:
        msvc.find(CUDA_13_0, USER_ENVIRONMENT, machine)
    assert refused.value.remedy is not None
    assert "--add Microsoft.VisualStudio.Component.VC.14.44.17.14.x86.x64" in refused.value.remedy
    assert str(COMMUNITY_2026) in refused.value.remedy


@pytest.mark.parametrize("vswhere", [None, "", "[]"])
def test_no_visual_studio_is_told_with_the_line_that_installs_one(
    machine: RecordedMachine, vswhere: str | None
) -> None:
    machine.vswhere = vswhere
    with pytest.raises(CompilerMissingError) as missing:
        msvc.find(CUDA_13_0, USER_ENVIRONMENT, machine)
    assert missing.value.remedy is not None
    assert missing.value.remedy.startswith("winget install Microsoft.VisualStudio.2022.BuildTools")
    assert "Microsoft.VisualStudio.Workload.VCTools" in missing.value.remedy


@pytest.mark.parametrize("answer", ["vswhere: error 0x57", '{"a": 1}', '[{"displayName": "x"}]'])
def test_an_answer_that_is_no_list_of_installations(machine: RecordedMachine, answer: str) -> None:
    machine.vswhere = answer
    with pytest.raises(CompilerMissingError, match="does not list the installations"):
        msvc.find(CUDA_13_0, USER_ENVIRONMENT, machine)


def test_installations_that_were_not_finished_are_left_out() -> None:
    names = [one.name for one in msvc.parse_vswhere(windows_machine.record("vswhere.json"))]
    assert names == [
        "Visual Studio Community 2026",
        "Visual Studio Build Tools 2022",
        "Visual Studio Community 2019",
    ]


def test_a_script_that_fails_is_told_with_its_own_words(machine: RecordedMachine) -> None:
    machine.vcvarsall = "[ERROR:vcvars.bat] Toolset directory for version '14.44.35207' was not found.\n"
    with pytest.raises(CompilerMissingError, match="was not found") as failed:
        msvc.find(CUDA_13_0, USER_ENVIRONMENT, machine)
    assert failed.value.remedy is not None
    assert str(BUILD_TOOLS) in failed.value.remedy


@pytest.mark.parametrize("language", ["en", "de"])
def test_the_version_is_read_in_any_language(language: str) -> None:
    assert msvc.parse_banner(windows_machine.record(f"cl-{language}.txt")) == "19.44.35219"


def test_names_of_variables_are_the_same_in_any_case() -> None:
    assert msvc.difference({"Path": "a", "TEMP": "t"}, {"PATH": "a", "temp": "u", "PROMPT": "$P"}) == {"temp": "u"}


def test_a_value_may_hold_an_equals_sign_and_lines_before_the_marker_do_not_count() -> None:
    assert msvc.parse_set(f"A=1\n{msvc.MARKER}\nB=x=y\n\n=C:=C:\\\n") == {"B": "x=y"}
