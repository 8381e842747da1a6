"""The wheelhouse: what gets in, what the page says, and what an interruption leaves."""

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from build_config.errors import InspectionError, PipelineError, SettingsError, StepResultError, ValidationError
from build_config.reports import BuildRecord, Finding, Severity, Verdict
from build_config.steps.wheelhouse import publication
from build_config.system import jsonio
from tests.support import factories, systems
from tests.support.publishable import Links, make

ERROR = Finding(code="rpath-outside", severity=Severity.ERROR, message="RPATH <elsewhere> leaves the wheel")
LEFT = [] if systems.ON_WINDOWS else [".lock"]
"""Windows deletes the file of a lock when it is released."""
AVX = Finding(code="avx-in-core", severity=Severity.ERROR, message="libllama.so has AVX instructions")


def assert_consistent(folder: Path) -> None:
    """Whole wheels, each next to its own record; the page vouches for no file that it does not describe."""
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.whl")}
    for name, digest in digests.items():
        assert jsonio.read(publication.record_path(folder / name), BuildRecord).sha256 == digest
    page = folder / publication.PAGE
    listed = Links(page).found if page.exists() else {}
    assert listed.items() <= digests.items()


def publish(tmp_path: Path, content: bytes = b"wheel", version: str = "0.3.36+cu130.sm89", **changes: Any) -> Path:
    """Publish a wheel; ``changes`` are those of its record or of its reports, which the record has, too."""
    wheel, record, inspection, validation = make(tmp_path, content, version)
    inspection = replace(inspection, **changes.get("inspection", {}))
    validation = replace(validation, **changes.get("validation", {}))
    record = replace(record, **{"inspection": inspection, "validation": validation, **changes.get("record", {})})
    return publication.publish(wheel, record, inspection, validation, tmp_path / "wheelhouse")


def test_publishes_wheel_record_and_page(tmp_path: Path) -> None:
    wheel, record, _, _ = made = make(tmp_path / "store")
    folder = tmp_path / "wheelhouse"
    published = publication.publish(*made, folder)
    assert published == folder / wheel.path.name
    assert published.read_bytes() == b"wheel"
    assert published.stat().st_mode & 0o777 == systems.mode(0o644)
    assert jsonio.read(publication.record_path(published), BuildRecord) == record
    files = {publication.PAGE, *(f"{wheel.path.name}{end}" for end in ("", ".record.json", ".intoto.json"))}
    assert {path.name for path in folder.iterdir()} == {*files, *LEFT}
    assert Links(folder / publication.PAGE).found == {wheel.path.name: wheel.sha256}
    page = (folder / publication.PAGE).read_text(encoding="utf-8")
    assert 'href="llama_cpp_python-0.3.36%2Bcu130.sm89-' in page, "the plus of a local version is quoted"


def test_old_wheels_stay_listed_with_their_own_verdict(tmp_path: Path) -> None:
    first = publish(tmp_path, b"first")
    second = publish(tmp_path, b"second", "0.3.36+cu130.sm120a", validation={"verdict": Verdict.GPU_VERIFIED})
    assert_consistent(tmp_path / "wheelhouse")
    page = tmp_path / "wheelhouse" / publication.PAGE
    assert Links(page).found.keys() == {first.name, second.name}
    rows = re.findall(r"<tr>.*?</tr>", page.read_text(encoding="utf-8"), re.DOTALL)
    verdicts = {row.partition("sm")[2].partition("-")[0]: row for row in rows}
    assert "cpu-fallback-verified" in verdicts["89"]
    assert "gpu-verified" in verdicts["120a"]


def test_same_name_is_replaced(tmp_path: Path) -> None:
    publish(tmp_path, b"old")
    published = publish(tmp_path, b"new bytes")
    assert published.read_bytes() == b"new bytes"
    assert Links(published.parent / publication.PAGE).found.keys() == {published.name}
    assert_consistent(published.parent)


def test_page_admits_a_wheel_that_has_no_record_of_its_bytes(tmp_path: Path) -> None:
    published = publish(tmp_path, version="0.3.35+cu130.sm89")
    published.write_bytes(b"changed by hand")
    (published.parent / "foreign-1.0-py3-none-any.whl").write_bytes(b"copied here by hand")
    publish(tmp_path)
    page = published.parent / publication.PAGE
    assert "no record of these bytes" in page.read_text(encoding="utf-8")
    assert "no readable record" in page.read_text(encoding="utf-8")
    assert Links(page).found[published.name] == hashlib.sha256(b"changed by hand").hexdigest()


@pytest.mark.parametrize(
    ("error", "changes", "said"),
    [
        (InspectionError, {"inspection": {"findings": (ERROR, AVX)}}, r"(?s)RPATH <elsewhere>.*rpath-out.*AVX.*avx-in"),
        (InspectionError, {"inspection": {"checks": ()}}, "not published"),
        (InspectionError, {"inspection": {"wheel_sha256": "0" * 64}}, "about another file"),
        (ValidationError, {"validation": {"wheel_sha256": "0" * 64}}, "about another file"),
        (ValidationError, {"validation": {"verdict": Verdict.FAILED, "findings": (ERROR,)}}, "rpath-outside"),
        (StepResultError, {"record": {"sha256": "0" * 64}}, "nothing was published"),
        (StepResultError, {"record": {"wheel": "other.whl"}}, "nothing was published"),
        (StepResultError, {"record": {"inspection": "another one"}}, "nothing was published"),
        (StepResultError, {"record": {"validation": "another one"}}, "nothing was published"),
    ],
)
def test_what_failed_or_is_about_something_else_is_refused_with_all_findings(
    tmp_path: Path, error: type[PipelineError], changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(error, match=said):
        publish(tmp_path, **changes)
    assert not (tmp_path / "wheelhouse").exists()


@pytest.mark.parametrize("warning", [Severity.WARNING, Severity.NOTE])
def test_warnings_do_not_keep_a_wheel_out(tmp_path: Path, warning: Severity) -> None:
    assert publish(tmp_path, inspection={"findings": (replace(ERROR, severity=warning),)}).exists()


def test_bytes_that_changed_after_validation_are_refused(tmp_path: Path) -> None:
    made = make(tmp_path)
    made[0].path.write_bytes(b"changed since")
    with pytest.raises(StepResultError, match="was inspected and validated"):
        publication.publish(*made, tmp_path / "wheelhouse")
    assert [path.name for path in (tmp_path / "wheelhouse").iterdir()] == LEFT


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / "wheelhouse").mkdir()
    (tmp_path / "wheelhouse" / ".llama_cpp_python-0.3.36.whl.abc.part").write_bytes(b"half")
    assert [path.name for path in publish(tmp_path).parent.glob(".*")] == LEFT


@pytest.mark.parametrize("replacing", [False, True], ids=["first", "replacing"])
def test_ctrl_c_before_any_change_of_the_folder_leaves_it_consistent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, replacing: bool
) -> None:
    """Stop at the first rename or removal, then at the second, and so on until one run goes through."""
    changes = 0
    stop_at = 0

    def stopping(real: Callable[..., object]) -> Callable[..., object]:
        def changed(path: Path, *arguments: object, **named: object) -> object:
            nonlocal changes
            changes += 1
            if changes == stop_at:
                raise KeyboardInterrupt
            return real(path, *arguments, **named)

        return changed

    old = make(tmp_path / "old", b"old")
    other = make(tmp_path / "other", b"other", "0.3.35+cu130.sm89")
    new = make(tmp_path / "new", b"new")
    finished = False
    while not finished:
        stop_at += 1
        folder = tmp_path / f"wheelhouse{stop_at}"
        publication.publish(*other, folder)
        if replacing:
            publication.publish(*old, folder)
        changes = 0
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", stopping(Path.replace))
            patch.setattr(Path, "unlink", stopping(Path.unlink))
            try:
                publication.publish(*new, folder)
                finished = True
            except KeyboardInterrupt:
                assert_consistent(folder)
        assert (folder / other[0].path.name).exists()
        publication.publish(*new, folder)  # the next run goes through whatever was left
        assert_consistent(folder)
        assert Links(folder / publication.PAGE).found.keys() == {other[0].path.name, new[0].path.name}
    assert stop_at > (5 if replacing else 3)


def test_the_newest_wheel_of_the_wheelhouse_is_validated_by_default(tmp_path: Path) -> None:
    layout = factories.layout(tmp_path / "w", checkout=tmp_path)
    with pytest.raises(SettingsError, match="no wheel"):
        publication.newest_wheel(layout)
    old, *_ = make(layout.wheelhouse, b"old", "0.3.35+cu130.sm89")
    new, *_ = make(layout.wheelhouse, b"new", "0.3.36+cu130.sm89")
    os.utime(old.path, (1, 1))
    assert publication.newest_wheel(layout) == new.path
