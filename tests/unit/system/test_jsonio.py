"""Step results as JSON: what is written is read back, and nothing else is taken for it."""

import json
from pathlib import Path

import pytest
from packaging.version import Version

from build_config.errors import StepResultError
from build_config.model import CudaArch, LockedFile, Wheel
from build_config.reports import BuildRecord, Severity
from build_config.system import jsonio
from tests.support import systems
from tests.support.publishable import make

FILE = LockedFile(name="cmake", version="4.4.4", filename="cmake.whl", sha256="0" * 64, size=3)


def test_nested_values_tuples_and_literals_come_back_equal(tmp_path: Path) -> None:
    wheel, record, _, _ = make(tmp_path)
    archs = (CudaArch.parse("120a-real"), CudaArch.parse("90-virtual"))
    for value, kind in ((wheel, Wheel), (record, BuildRecord), (archs, tuple[CudaArch, ...])):
        jsonio.write(tmp_path / "state" / "value.json", value)
        assert jsonio.read(tmp_path / "state" / "value.json", kind) == value


def test_values_become_plain_text() -> None:
    value = {"a": (Path("x"), Version("1.0rc1")), Severity.NOTE: [CudaArch.parse("90a-real"), None, 1.5, True]}

    assert json.loads(jsonio.dumps(value)) == {
        "a": ["x", "1.0rc1"],
        "note": [{"number": 90, "suffix": "a", "kind": "real"}, None, 1.5, True],
    }


def test_equal_values_give_equal_text_whatever_the_order_of_keys() -> None:
    assert jsonio.dumps({"b": 1, "a": "caf\N{LATIN SMALL LETTER E WITH ACUTE}"}) == (
        '{\n  "a": "caf\N{LATIN SMALL LETTER E WITH ACUTE}",\n  "b": 1\n}\n'
    )


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{",
        "[]",
        "null",
        json.dumps(jsonio.to_data(FILE) | {"unknown": 1}),
        json.dumps({key: value for key, value in jsonio.to_data(FILE).items() if key != "sha256"}),
        json.dumps(jsonio.to_data(FILE) | {"size": "three"}),
    ],
)
def test_anything_else_is_refused_by_name(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "file.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(StepResultError, match=r"file\.json|LockedFile"):
        jsonio.read(path, LockedFile)


def test_wrong_literal_is_refused() -> None:
    with pytest.raises(StepResultError, match="CudaArch"):
        jsonio.from_data({"number": 89, "suffix": "z", "kind": "real"}, CudaArch)


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    jsonio.write(path, FILE)
    before = path.read_text(encoding="utf-8")

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        jsonio.write(path, {"other": 1})

    assert path.read_text(encoding="utf-8") == before
    assert list(tmp_path.iterdir()) == [path]


def test_files_are_readable_for_everybody(tmp_path: Path) -> None:
    jsonio.write_text(tmp_path / "page.html", "x")

    assert (tmp_path / "page.html").stat().st_mode & 0o777 == systems.mode(0o644)


def test_a_sealed_value_is_read_only_while_no_byte_of_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    jsonio.write_sealed(path, {"passed": False, "checks": 12})
    assert jsonio.read_sealed(path, dict[str, int]) == {"passed": False, "checks": 12}
    sound = path.read_bytes()
    assert b"false" in sound
    for changed in (sound.replace(b"false", b"true"), sound.replace(b"12", b"13"), sound[:-3], b"{}", b"[]"):
        path.write_bytes(changed)
        with pytest.raises(StepResultError):
            jsonio.read_sealed(path, dict[str, int])
