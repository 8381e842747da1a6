"""Logs as programs, shells and containers write them into files: the text is the same, and so is the answer."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from check_gpu import __main__ as command_line
from check_gpu import collect, log, log_file, log_stream
from check_gpu.diagnosis import diagnose
from check_gpu.facts import Facts, Machine
from check_gpu.result import Code, Diagnosis
from tests.support import model_logs
from tests.support.diagnosis_cases import CASES

if TYPE_CHECKING:
    from collections.abc import Callable

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
    "lines that a carriage return ends": TEXT.replace("\n", "\r").encode(),
    "the same in UTF-16": TEXT.replace("\n", "\r").encode("utf-16"),
    "UTF-16 without a mark": TEXT.encode("utf-16-le"),
    "UTF-16 without a mark, the other byte order": TEXT.encode("utf-16-be"),
    "UTF-32": TEXT.encode("utf-32"),
    "UTF-8 appended to UTF-16": "\n".join(LINES[:9]).encode("utf-16") + b"\r\0\n\0" + "\n".join(LINES[9:]).encode(),
    "UTF-8 appended to UTF-16 without the end of its line": (
        "\n".join(LINES[:9]).encode("utf-16") + b"\n" + "\n".join(LINES[9:]).encode()
    ),
    "each line in another encoding": b"".join(
        f"{line}\r\n".encode(("utf-16-le", "utf-8", "utf-16", "utf-8-sig")[number % 4])
        for number, line in enumerate(LINES)
    ),
    "UTF-16 with characters that contain the byte of a line feed": (
        TEXT.replace("from ", "from C:\\上上\\模型上\\中中中中").encode("utf-16")
    ),
    "JSON in the lines of Compose": "".join(f"llama-1  | {json.dumps({'log': line})}\n" for line in LINES).encode(),
    "a collector that adds where a line comes from": "".join(
        json.dumps({"kubernetes": {"pod": "x" * 4000}, "data": {"message": line}}) + "\n" for line in LINES
    ).encode(),
    "gzip": gzip.compress(TEXT.encode()),
    "gzip, rotated and appended": gzip.compress(TEXT[:900].encode()) + gzip.compress(TEXT[900:].encode()),
    "gzip of UTF-16": gzip.compress(TEXT.encode("utf-16")),
    "bzip2": bz2.compress(TEXT.encode()),
    "xz": lzma.compress(TEXT.encode()),
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


def appended(text: str) -> bytes:
    """The first line in UTF-16, the others in UTF-8."""
    first, _, others = text.partition("\n")
    return f"{first}\r\n".encode("utf-16") + others.encode()


WRITTEN: dict[str, Callable[[str], bytes]] = {
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-8 with a mark": lambda text: text.encode("utf-8-sig"),
    "UTF-8 after UTF-16": appended,
    "carriage returns": lambda text: text.replace("\n", "\r").encode(),
    "gzip": lambda text: gzip.compress(text.encode()),
    "Docker": lambda text: "".join(json.dumps({"log": f"{line}\n"}) + "\n" for line in text.splitlines()).encode(),
}


@pytest.mark.parametrize("form", WRITTEN)
def test_the_form_of_a_file_hides_no_fault(tmp_path: Path, form: str) -> None:
    for case in CASES:
        file = tmp_path / "a.log"
        file.write_bytes(WRITTEN[form](case.log))
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
    "name",
    [
        "UTF-16 of PowerShell",
        "Docker, with colours",
        "Compose",
        "UTF-8 with a byte order mark",
        "UTF-16 without a mark",
        "each line in another encoding",
        "lines that a carriage return ends",
    ],
)
def test_where_a_block_ends_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, size: int
) -> None:
    file = tmp_path / "a.log"
    file.write_bytes(FORMS[name])
    whole = log_file.read(file)
    monkeypatch.setattr(log_stream, "_BLOCK", size)
    monkeypatch.setattr(log_stream, "_CUT", 1 << 20)
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
        (b"{" * 100_000, "does not say where any layer is"),
        (b'{"log": {"a": 1}}\n[1, 2]\n{"log": null}\n', "does not say where any layer is"),
        (b"layer " * 1_000_000, "does not say where any layer is"),
    ],
    ids=["empty", "blank", "a mark alone", "bytes", "a program", "braces", "other JSON", "one line"],
)
def test_a_file_that_is_no_log_says_nothing(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "a.log"
    file.write_bytes(content)
    found = judge(file)
    assert found.code is Code.LOG_SAYS_NOTHING
    assert said in found.sentence


@pytest.mark.parametrize("before", [0, 100, 3000, 100_000])
@pytest.mark.parametrize("word", ["GPU", "failed", "layer"])
def test_a_failure_in_a_very_long_line_is_seen(tmp_path: Path, before: int, word: str) -> None:
    """A line of progress or of data that another program did not end; more of its parts are of words of llama.cpp."""
    file = tmp_path / "a.log"
    other = f"x9 {word} " * before
    file.write_text(f"{TEXT}{other}CUDA error: out of memory {other}\n", encoding="utf-8")
    assert judge(file).code is Code.OUT_OF_MEMORY


def cannot_be_read(file: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        command_line.main(["--log", file])
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x1f\x8b\x08\0" + b"offloaded" * 10, "damaged or cut: gzip -dc FILE | ... --log -"),
        (gzip.compress(TEXT.encode())[:-20], "damaged or cut: gzip"),
        (bz2.compress(TEXT.encode())[:-20], "damaged or cut: bzip2"),
        (lzma.compress(TEXT.encode())[:-20], "damaged or cut: xz"),
        (lzma.compress(TEXT.encode())[:60] + bytes(100), "damaged or cut: xz"),
        (b"PK\x03\x04" + bytes(100), "unzip -p"),
    ],
    ids=["not gzip", "cut gzip", "cut bzip2", "cut xz", "damaged xz", "zip"],
)
def test_a_compressed_log_without_its_end_is_not_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, said: str
) -> None:
    """The end of a log is what counts: an error is there."""
    file = tmp_path / "a.log.gz"
    file.write_bytes(content)
    assert said in cannot_be_read(str(file), capsys)


def test_a_compressor_that_this_python_lacks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "lzma", None)
    file = tmp_path / "a.log.xz"
    file.write_bytes(lzma.compress(TEXT.encode()))
    assert f"this Python cannot uncompress it: xz -dc {file} | ... --log -" in cannot_be_read(str(file), capsys)


@pytest.mark.parametrize("content", [TEXT.encode(), gzip.compress(TEXT.encode())], ids=["text", "gzip"])
def test_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content))))
    assert command_line.main(["--log", "-"]) == 0
    assert "standard input" in capsys.readouterr().out


def test_without_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert "there is no standard input" in cannot_be_read("-", capsys)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes in the file system")
def test_a_pipe_is_opened_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(TEXT.encode(),), daemon=True)
    writer.start()
    assert command_line.main(["--log", str(pipe)]) == 0
    writer.join(10)
    assert not writer.is_alive()
    assert "card-used" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
@pytest.mark.parametrize("file", ["/proc/kmsg", "/proc/uptime", "/dev/null", "/dev/kmsg"])
def test_a_part_of_the_system_is_no_log(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """To read ``/proc/kmsg`` may wait for ever, and takes the messages away from the system's own log."""
    assert "cannot be read" in cannot_be_read(file, capsys) or not Path(file).exists()


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
    monkeypatch.setattr(log_stream, "_BLOCK", 1 << 14)
    monkeypatch.setattr(log_stream, "_CUT", 1 << 14)
    tracemalloc.start()
    try:
        kept, signs = log_file.read(file)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 << 19
    assert len(kept) <= log_file.TAIL
    assert signs.placements.offloaded == (3, 3)
