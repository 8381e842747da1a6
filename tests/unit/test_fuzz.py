"""A part of `python -m measurements.fuzz`, and every input that it has found."""

import contextlib
import struct
from pathlib import Path

import pytest

from check_gpu import elf as plain_elf
from measurements.fuzz import run
from measurements.fuzz.run import HangError
from measurements.fuzz.targets import TARGETS, Target
from tests.support import elf_files, systems

FINDS = Path(run.__file__).parent / "finds"
BY_FOLDER = {target.name.replace(" ", "_"): target for target in TARGETS}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_no_input_of_a_few_seconds_ends_a_parser_otherwise_than_by_its_own_errors(target: Target) -> None:
    inputs = 5 if target.name == "PE" else 60  # pefile takes its time
    outcome = run.fuzz(target, seed=7, inputs=inputs)
    assert outcome.inputs == inputs
    assert not outcome.finds, [find.what for find in outcome.finds]


@pytest.mark.parametrize("path", sorted(FINDS.glob("*/*")), ids=lambda path: f"{path.parent.name} {path.name}")
def test_what_was_found_once_is_refused_or_read(path: Path) -> None:
    _, find = run.feed(BY_FOLDER[path.parent.name], path.read_bytes())
    assert find is None, find.what


def test_a_parser_that_crashes_or_hangs_is_found() -> None:
    def crash(data: bytes) -> None:
        if data != b"sound":
            raise IndexError(data)

    broken = Target(name="broken", seeds=lambda: (b"sound",), run=crash, allowed=(KeyError,))
    outcome = run.fuzz(broken, seed=1, inputs=20)
    assert [find.what.partition(" in ")[0] for find in outcome.finds] == ["IndexError"]
    assert outcome.refused == 0
    own = Target(name="own", seeds=lambda: (b"sound",), run=crash, allowed=(IndexError,))
    assert run.fuzz(own, seed=1, inputs=20).refused > 10  # an empty insertion gives the sound input again


@systems.linux_only("Windows has no timer that interrupts a program")
def test_a_hang_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "SECONDS_ALLOWED", 0.05)

    def hang(_: bytes) -> None:
        while True:
            with contextlib.suppress(Exception):  # a parser that catches everything does not catch this
                sum(range(1000))

    refused, find = run.feed(Target(name="slow", seeds=lambda: (b"",), run=hang, allowed=(ValueError,)), b"")
    assert not refused
    assert find is not None
    assert find.what.startswith(HangError.__name__)


def test_the_same_seed_gives_the_same_inputs() -> None:
    seen: list[list[bytes]] = []
    for seed in (1, 1, 2):
        inputs: list[bytes] = []
        run.fuzz(Target(name="a", seeds=lambda: (b"x" * 100,), run=inputs.append, allowed=()), seed=seed, inputs=50)
        seen.append(inputs)
    assert seen[0] == seen[1] != seen[2]


def test_many_sections_that_share_a_long_name_cost_no_time() -> None:
    """65,000 names of a megabyte each, in a file of five."""
    count = 65_000
    sound = elf_files.elf_file(elf_files.Part(".text", b"x" * 8))
    table = (len(sound) + 7) // 8 * 8
    strings = b"n" * (1 << 20) + b"\0"
    entry = struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, table + 64 * count, len(strings), 0, 0, 8, 0)
    data = bytearray(sound.ljust(table, b"\0") + entry * count + strings)
    data[40:48] = table.to_bytes(8, "little")
    data[60:62], data[62:64] = count.to_bytes(2, "little"), (0).to_bytes(2, "little")
    with pytest.raises(plain_elf.UnreadableError, match="damaged ELF"):
        plain_elf.read(bytes(data))
