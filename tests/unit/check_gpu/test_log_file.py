"""Logs as programs, shells and containers write them into files: the text is the same, and so is the answer."""

from __future__ import annotations

import json
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from check_gpu import collect, log, log_file
from check_gpu.diagnosis import diagnose
from check_gpu.facts import Facts, Machine
from check_gpu.result import Code, Diagnosis
from tests.support import model_logs
from tests.support.diagnosis_cases import CASES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.unit

LINES = [line.replace("SIMULATED device 8.9 (not a GPU)", "NVIDIA L4 é") for line in model_logs.read("llama", "gpu")]
TEXT = "\n".join(LINES) + "\n"


def judge(file: Path) -> Diagnosis:
    return diagnose(Facts(machine=Machine(system="linux"), load=collect.read_log(file)))


def each(form: str) -> bytes:
    return "".join(f"{form.format(line)}\n" for line in LINES).encode()


def in_json(**fields: str) -> bytes:
    """A line of JSON for each line; ``{}`` in a field is the line."""
    lines = ({name: value.replace("{}", line) for name, value in fields.items()} for line in LINES)
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


FORMS: dict[str, bytes] = {
    "UTF-16 of PowerShell": TEXT.replace("\n", "\r\n").encode("utf-16"),
    "UTF-16, the other byte order": b"\xfe\xff" + TEXT.encode("utf-16-be"),
    "UTF-8 with a byte order mark": TEXT.encode("utf-8-sig"),
    "UTF-16 appended to another encoding": b"PS> python app.py\n" + TEXT.replace("é", "e").encode("utf-16-le"),
    "lines of Windows": TEXT.replace("\n", "\r\n").encode(),
    "lines that overwrite one another": TEXT.replace("load_tensors", "loading 99%\rload_tensors").encode(),
    "colours of llama.cpp's programs": each("\x1b[32mI \x1b[0m{}\x1b[0m"),
    "colours of 24 bits, and the end of a line erased": each("\x1b[38;2;10;20;30m{}\x1b[K\x1b[0m"),
    "colours as syslog writes them": each("#033[32m{}#033[0m"),
    "links of a terminal": each("\x1b]8;;https://example.org\x07{}\x1b]8;;\x07"),
    "Docker": in_json(log="{}\n", stream="stderr", time="2026-11-28T10:00:00.000000000Z"),
    "Docker, with colours": in_json(log="\x1b[32m{}\x1b[0m\r\n", stream="stderr"),
    "journald": in_json(MESSAGE="{}", _PID="2112", SYSLOG_IDENTIFIER="python3"),
    "journald, messages as bytes": "".join(
        json.dumps({"MESSAGE": [*f"\x1b[32m{line}\x1b[0m".encode()]}) + "\n" for line in LINES
    ).encode(),
    "a collector": in_json(level="info", message="{}"),
    "journald, short": each("Nov 28 10:00:00 host python3[2112]: {}"),
    "Compose": each("llama-1  | {}"),
    "Compose, with colours": each("\x1b[36mllama-1  | \x1b[0m{}"),
    "Kubernetes": each("2026-11-28T10:00:00.000000000Z stderr F {}"),
    "time before each line": each("[2026-11-28 10:00:00,000] INFO: {}"),
    "bytes that are no text between the lines": TEXT.encode().replace(b"\n", b"\n\xff\x00\x81\n"),
}


@pytest.mark.parametrize("content", FORMS.values(), ids=FORMS)
def test_the_form_of_a_file_changes_nothing(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.log"
    file.write_bytes(content)
    found = judge(file)
    assert found.code is Code.CARD_USED
    assert found.sentence.replace("L4 e", "L4 é") == (
        "The GPU was used: all layers and their KV cache were on CUDA0 (NVIDIA L4 é)."
    )


@pytest.mark.parametrize("form", ["utf-16", "utf-8-sig", "docker"])
def test_the_form_of_a_file_hides_no_fault(tmp_path: Path, form: str) -> None:
    for case in CASES:
        lines = case.log.splitlines()
        content = (
            "".join(json.dumps({"log": f"{line}\n"}) + "\n" for line in lines).encode()
            if form == "docker"
            else case.log.encode(form)
        )
        file = tmp_path / "a.log"
        file.write_bytes(content)
        assert judge(file).code is Code(case.expected), case.name


def test_the_reported_files(tmp_path: Path) -> None:
    file = tmp_path / "a.log"
    file.write_bytes("load_tensors: offloaded 33/33 layers to GPU\r\n".encode("utf-16"))
    assert judge(file).code is Code.CARD_USED
    file.write_bytes(b"\x1b[32mI \x1b[0mload_tensors: layer   0 assigned to device CUDA0\x1b[0m\n")
    assert "on CUDA0, but" in judge(file).sentence
    assert "\x1b" not in judge(file).sentence


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
@pytest.mark.parametrize(
    "name", ["UTF-16 of PowerShell", "Docker, with colours", "Compose", "UTF-8 with a byte order mark"]
)
def test_where_a_block_ends_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, size: int
) -> None:
    file = tmp_path / "a.log"
    file.write_bytes(FORMS[name])
    whole = log_file.read(file)
    monkeypatch.setattr(log_file, "_BLOCK", size)
    monkeypatch.setattr(log_file, "_CUT", 1 << 20)
    assert log_file.read(file) == whole
    assert whole[1] == log.read(LINES)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "The log is empty"),
        (b"\n\n \n", "The log is empty"),
        (b"\xef\xbb\xbf", "The log is empty"),
        (bytes(range(256)) * 1000, "does not say where any layer is"),
        (b"\x7fELF\x02\x01\x01" + b"\0" * 5000, "does not say where any layer is"),
        (b"\x1f\x8b\x08\0" + b"offloaded" * 10, "does not say where any layer is"),
        (b"{" * 100_000, "does not say where any layer is"),
        (b'{"log": {"a": 1}}\n[1, 2]\n{"log": null}\n', "does not say where any layer is"),
        (b"layer " * 1_000_000, "does not say where any layer is"),
    ],
    ids=["empty", "blank", "a mark alone", "bytes", "a program", "compressed", "braces", "other JSON", "one line"],
)
def test_a_file_that_is_no_log_says_nothing(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "a.log"
    file.write_bytes(content)
    found = judge(file)
    assert found.code is Code.LOG_SAYS_NOTHING
    assert said in found.sentence


def grown(lines: Callable[[int], str], size: int) -> str:
    return TEXT + "".join(lines(number) for number in range(size // len(lines(0))))


@pytest.mark.parametrize(
    "line",
    [
        lambda number: f"slot print_timing: id {number % 4} | 12.5 tokens per second, layer by layer\n",
        lambda number: f"llama_context: CUDA_Host output buffer size = {number % 9}.00 MiB\n",
        lambda _number: "x" * 1000,
        lambda _number: TEXT,
    ],
    ids=["other lines", "lines of the grammar", "one long line", "many loads"],
)
def test_a_long_log_needs_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: Callable[[int], str]
) -> None:
    file = tmp_path / "a.log"
    file.write_text(grown(line, 2 << 20), encoding="utf-8")
    monkeypatch.setattr(log_file, "_BLOCK", 1 << 14)
    monkeypatch.setattr(log_file, "_CUT", 1 << 14)
    tracemalloc.start()
    try:
        kept, signs = log_file.read(file)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 << 19
    assert len(kept) <= log_file.TAIL
    assert signs.placements.offloaded == (3, 3)
