"""The build record: complete, a pure function of its inputs, and without a path of the machine."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from build_config.model import BuildUnit, CompiledUnits, LockedFile, SystemHeaders, UnitKey
from build_config.reports import BuildRecord, Finding, Material, Severity, StepTiming
from build_config.steps.wheelhouse import build_record
from build_config.system import jsonio
from build_config.system.layout import CANONICAL_WORK_ROOT
from tests.support import factories, systems
from tests.support.publishable import make

COMMIT = "1f0c2d3e" * 5
MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CREATED = "2026-01-02T03:04:05Z"

ORIGIN = build_record.Origin(
    pipeline="0.1.0 (commit unknown)",
    request=(("arch", "89"),),
    locks=(("sources.toml", "5" * 64), ("cuda-13.0.toml", "c" * 64)),
    materials=(),
    started=MOMENT - timedelta(minutes=1),
)
HEADERS = SystemHeaders(
    number=461,
    sha256="e" * 64,
    unexpected=(Path("/usr/include/nvtx3/nvToolsExt.h"), Path("/opt/x/include/nvtx3/nvtx3.hpp")),
)


def unit(name: str, *inputs: tuple[str, str]) -> BuildUnit:
    return BuildUnit(
        name=name,
        key=UnitKey(digest=name[0] * 64, inputs=inputs),
        folder=Path("/store") / name,
        files=(),
        shard=None if name == "core" else factories.SM89,
        network="none",
        headers=None if name == "core" else HEADERS,
        launcher=None if name == "core" else "sccache 0.16.0 (a test)",
        origin=None if name == "core" else f"the shared store s3://team/units, signed by the key {'9' * 64}",
    )


def record(tmp_path: Path, text: str = "a test", *, cuda: str = "13.0.88", created: datetime = MOMENT) -> BuildRecord:
    """A record; ``text`` is in it in three places."""
    wheel, _, inspection, validation = make(tmp_path)
    chain = factories.toolchain(cuda=cuda)
    return build_record.make_record(
        wheel,
        CompiledUnits(
            tree=factories.source_tree(),
            toolchain=replace(chain, cuda=replace(chain.cuda, nvcc=replace(chain.cuda.nvcc, found_via=text))),
            shards=(factories.SM89,),
            units=(unit("core"), unit("sm89", ("flag", text))),
            project_digest="",
        ),
        ORIGIN,
        replace(inspection, findings=(Finding(code="x", severity=Severity.NOTE, message=text),)),
        validation,
        steps=(StepTiming(step="build", seconds=12.5),),
        created=created,
    )


def test_record_tells_what_went_in_and_what_came_out(tmp_path: Path) -> None:
    wheel, _, inspection, validation = make(tmp_path)
    made = record(tmp_path)
    assert (made.wheel, made.sha256, made.size) == (wheel.path.name, wheel.sha256, wheel.size)
    assert (made.version, made.started, made.created) == (str(wheel.version), "2026-01-02T03:03:05Z", CREATED)
    assert (made.request, made.sources_locked) == ((("arch", "89"),), True)
    assert made.llama_cpp_commit == "0123456789abcdef"
    assert made.locks == (("cuda-13.0.toml", "c" * 64), ("sources.toml", "5" * 64))
    assert [key.digest for key in made.units] == ["c" * 64, "s" * 64]
    assert made.shards == (factories.SM89,)
    assert (made.inspection.checks, made.validation) == (inspection.checks, validation)
    toolchain = dict(made.toolchain)
    expected = {
        "cuda": "13.0.88",
        "cxx": "g++ 12.2.0 (a test)",
        "launcher": "none; sccache 0.16.0 (a test)",
        "origin of core": "the store of this machine",
        "origin of sm89": f"the shared store s3://team/units, signed by the key {'9' * 64}",
        "system headers of sm89": f"461, sha256 {'e' * 64}",
        "headers of others in sm89": "nvtx3/nvToolsExt.h, nvtx3/nvtx3.hpp",
    }
    assert expected.items() <= toolchain.items()
    assert not {"system headers of core", "reproducibility"} & toolchain.keys()


def test_a_build_without_a_seed_says_that_it_cannot_be_reproduced(tmp_path: Path) -> None:
    assert "NOT reproducible byte for byte" in dict(record(tmp_path, cuda="12.4.131").toolchain)["reproducibility"]


def test_time_is_recorded_in_utc_and_must_have_a_zone(tmp_path: Path) -> None:
    there = MOMENT.astimezone(timezone(timedelta(hours=9)))
    assert record(tmp_path, created=there).created == CREATED
    with pytest.raises(ValueError, match="time zone"):
        record(tmp_path, created=MOMENT.replace(tzinfo=None))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nvcc on PATH (/usr/local/cuda-13.0/bin/nvcc)", "nvcc on PATH (<path>)"),
        ("CUDA_PATH=/home/alice/cuda", "CUDA_PATH=<path>"),
        ("-I/home/alice/include -L/opt/lib", "-I<path> -L<path>"),
        ("file:///home/alice/x.whl", "file://<path>"),
        pytest.param("'/root'", "'<path>'", marks=systems.linux_only("an option of Windows' programs")),
        pytest.param(
            r"/MD /Brepro /experimental:deterministic /pathmap:C:\Users\alice\x=. /machine:x64",
            r"/MD /Brepro /experimental:deterministic /pathmap:<path>=. /machine:x64",
            marks=pytest.mark.skipif(not systems.ON_WINDOWS, reason="paths on Linux"),
        ),
        (r"C:\Users\alice\cuda\bin", "<path>"),
        ("/srv/one:/srv/two", "<path>:<path>"),
        (
            f"-ffile-prefix-map={CANONICAL_WORK_ROOT}/src=/home/alice",
            f"-ffile-prefix-map={CANONICAL_WORK_ROOT}/src=<path>",
        ),
        ("https://pypi.org/simple/x", "https://pypi.org/simple/x"),
        ("3/3 layers, weights / KV cache, nvidia/cu13/bin", "3/3 layers, weights / KV cache, nvidia/cu13/bin"),
        (f"{CANONICAL_WORK_ROOT}/src/llama.cpp", f"{CANONICAL_WORK_ROOT}/src/llama.cpp"),
        (f"{CANONICAL_WORK_ROOT}-of-mine/src", "<path>"),
    ],
)
def test_paths_of_the_machine_are_left_out(tmp_path: Path, text: str, expected: str) -> None:
    made = record(tmp_path, text)
    assert dict(made.toolchain)["cuda.found-via"] == expected
    assert made.inspection.findings[0].message == expected
    assert made.units[1].inputs == (("flag", expected),)


def test_the_same_arguments_give_the_same_text_and_no_typed_path_gets_into_it(tmp_path: Path) -> None:
    text = jsonio.dumps(record(tmp_path))
    assert text == jsonio.dumps(record(tmp_path))
    assert str(tmp_path) not in text
    assert not re.search(r'"/|[ =]/', text)


# ------------------------------------------------------------------------------------------------------- materials


def named(*, locked: bool = True, toolkit: bool = True) -> dict[str, Material]:
    file = LockedFile(name="x", version="1", filename="x-1.tar.gz", sha256="f" * 64, size=1)
    commit = COMMIT if locked else "unknown"
    found = build_record.materials(
        source=file,
        toolkit=(replace(file, name="nvcc", filename="nvcc-1.whl"),) if toolkit else (),
        tree=replace(factories.source_tree(), locked=locked, commit=commit),
        toolchain=factories.toolchain(),
        tools=(("ninja", "1.13", ("b" * 64, "a" * 64)),),
    )
    return {material.name: material for material in found}


def test_materials_have_the_digests_of_the_locks() -> None:
    found = named()
    assert found["x-1.tar.gz"].digests == (("sha256", "f" * 64),)
    assert found["nvcc-1.whl"].uri == "pkg:pypi/nvcc@1"
    assert found["llama.cpp"].digests == (("gitCommit", COMMIT),)
    assert found["ninja 1.13"].annotations == (("one-of-sha256", ("a" * 64, "b" * 64)),)
    assert found["GCC 12.2.0"].annotations == (("identity", (factories.toolchain().host.identity,)),)


def test_what_is_not_locked_is_said_to_be_so() -> None:
    found = named(locked=False, toolkit=False)
    assert (found["llama.cpp"].uri, found["llama.cpp"].digests) == (None, ())
    assert dict(found["llama.cpp"].annotations)["locked"] == ("no",)
    toolkit = dict(found["CUDA toolkit 13.0.88"].annotations)
    assert toolkit["locked"] == ("no",)
    assert "an installed toolkit" in toolkit["source"][0]


def test_the_version_of_the_pipeline_has_the_commit(tmp_path: Path) -> None:
    assert build_record.pipeline_version(tmp_path) == f"{build_record.VERSION} (commit unknown)"
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text(COMMIT)
    assert build_record.pipeline_version(tmp_path) == f"{build_record.VERSION} (commit {COMMIT})"
