"""What `nox -s clean` frees, what it keeps, and what it refuses."""

import dataclasses
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import DEFAULT, Mock

import pytest

from build_config.errors import SettingsError, WorkRootError
from build_config.model import UnitKey
from build_config.steps import locks
from build_config.steps.toolchain import locked_cuda
from build_config.steps.units import store
from build_config.steps.units.spec import UnitSpec
from build_config.system import jsonio, platforms, usage
from build_config.system.console import Console
from build_config.system.layout import PACKAGE, Layout
from build_config.tasks import clean as task
from build_config.tasks.clean import choice, inventory
from build_config.tasks.clean.choice import Limits
from tests.support import attested, factories, systems

DAY = 86_400.0
NOW = 1_800_000_000.0
BLOCK = 4096
OLD = Limits(older_than=30 * DAY)
ALL = Limits(older_than=0.0)


class Terminal(Console):
    """A console whose user answers, after ``meanwhile``."""

    def __init__(self, *, answer: bool | None = True, meanwhile: Callable[[], object] = lambda: None) -> None:
        super().__init__(terminal=False)
        self.answer = answer
        self.meanwhile = meanwhile
        self.questions: list[str] = []

    def confirm(self, question: str) -> bool | None:
        self.questions.append(question)
        self.meanwhile()
        return self.answer


@pytest.fixture(name="layout")
def _layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(time, "time", lambda: NOW)
    layout = factories.layout(tmp_path / "root", tmp_path / "checkout")
    layout.work_root.mkdir()
    layout.lock_file.touch()
    layout.state.mkdir()
    if systems.ON_WINDOWS:
        systems.answer_as_windows(monkeypatch)
    return layout


def put(path: Path, *, days: float = 100.0, size: int = BLOCK) -> Path:
    """A file that was last used so many days ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    age(path, days)
    return path


def age(path: Path, days: float) -> None:
    for each in (path, *path.rglob("*")):
        os.utime(each, (NOW - days * DAY, NOW - days * DAY))


def unit(layout: Layout, name: str, key: str, *, days: float = 100.0) -> Path:
    folder = layout.store / name / key[:32]
    put(folder / "lib" / "lib.so", days=days)
    age(folder, days)
    return folder


def clean(layout: Layout, limits: Limits, console: Terminal | None = None) -> task.Cleaned:
    return task.clean(task.CleanRequest(limits=limits), layout, console or Terminal())


@systems.linux_only("under Wine, reading a file changes its times for good")
def test_without_a_limit_nothing_is_freed_and_nobody_is_asked(
    layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = unit(layout, "core", "a" * 64)
    console = Terminal()
    assert clean(layout, Limits(), console).freed == ()
    assert folder.is_dir()
    assert not console.questions
    assert re.search(r"^units +1 +\d.* 100 days", capsys.readouterr().out, re.MULTILINE)


def test_what_was_not_used_for_long_is_freed_and_said_before(
    layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    old, recent = unit(layout, "core", "a" * 64, days=31), unit(layout, "core", "b" * 64, days=29)
    console = Terminal(meanwhile=lambda: said.append(capsys.readouterr().out))
    said: list[str] = []
    assert [item.path for item in clean(layout, OLD, console).freed] == [old]
    assert not old.exists()
    assert recent.is_dir()
    assert "to free" in said[0]
    assert re.search(r"Free .* in 1 files and folders", console.questions[0])


def test_a_unit_that_a_build_took_from_the_store_counts_as_used(layout: Layout) -> None:
    spec = UnitSpec(name="core", key=UnitKey.of({"a": "b"}), expected=("a.so",), entries={}, shard=None)
    built = put(layout.work_root / "tmp" / "built" / "a.so").parent
    kept = store.keep(spec, built, layout, network="none").folder.parent
    age(kept, 3000)
    before = kept.stat().st_mtime
    assert store.find(spec, layout) is not None
    assert kept.stat().st_mtime > before


def test_what_was_not_used_for_longest_goes_first(layout: Layout) -> None:
    folders = [unit(layout, "core", letter * 64, days=days) for letter, days in (("a", 3), ("b", 1), ("c", 2))]
    whole = sum(item.size for item in inventory.collect(layout, NOW))
    done = clean(layout, Limits(keep_below=whole - 1))
    assert [item.path for item in done.freed] == [folders[0]]
    assert done.left == sum(item.size for item in inventory.collect(layout, NOW)) < whole
    assert not done.too_much


@systems.linux_only("under Wine, reading a file changes its times for good")
@pytest.mark.parametrize("published", [True, False])
def test_what_the_wheelhouse_needs_stays(layout: Layout, *, published: bool) -> None:
    """The same files go if there is no wheel that needs them."""
    house = attested.publish(layout.checkout)
    record = dataclasses.replace(
        house.record, toolchain=(("cuda.identity", "e" * 64), ("cuda.locked", "yes"), ("cuda", "13.0.88"))
    )
    jsonio.write(house.files()["record"], record)
    if not published:
        house.wheel.unlink()
    needed = {
        unit(layout, "core", "c" * 64),
        unit(layout, "sm89", "d" * 64),
        put(layout.toolkits / f"cuda-13.0-{'e' * 12}" / "nvcc").parent,
        put(layout.build / "sm89" / "build.ninja").parent,
        put(layout.state / "inspection" / f"{record.sha256}-0123456789abcdef.json"),
        put(layout.store / "wheel" / "k" / "a.whl").parent,
    }
    jsonio.write(layout.store / "wheel" / "k" / "wheel.json", record.sha256)
    other = unit(layout, "core", "f" * 64)
    for path in (*needed, other):
        age(path, 100)
    freed = {item.path for item in clean(layout, OLD).freed}
    assert freed == ({other} if published else {other, *needed})
    assert {path for path in needed if path.exists()} == (needed if published else set())


def test_what_this_checkout_needs_stays(layout: Layout) -> None:
    locked = locks.read(layout, platforms.HERE.name)
    (toolkit, *_) = locked.toolkits
    needed = {
        put(layout.downloads / locked.source.file.filename),
        put(layout.downloads / "verified.json"),
        put(locked_cuda.planned(toolkit, layout).root / "nvcc").parent,
        put(locked_cuda.root_without_compiler(toolkit, layout) / "cuobjdump").parent,
        put(layout.state / "seconds.json"),
        put(layout.tools / "path" / "as").parent,
    }
    age(layout.work_root, 100)
    other = {put(layout.downloads / "old.whl"), put(layout.tools / "sccache-0.1.0" / "sccache").parent}
    age(layout.work_root, 100)
    assert {item.path for item in clean(layout, OLD).freed} == other
    assert all(path.exists() for path in needed)


def test_a_record_that_cannot_be_read_keeps_every_unit(layout: Layout) -> None:
    house = attested.publish(layout.checkout)
    house.files()["record"].write_text("{}", encoding="utf-8")
    folder = unit(layout, "core", "a" * 64)
    assert clean(layout, OLD).freed == ()
    assert folder.is_dir()


def test_a_wheel_of_somebody_else_in_the_wheelhouse_keeps_every_unit(layout: Layout) -> None:
    put(layout.wheelhouse / "a wheel.whl")
    unit(layout, "core", "a" * 64)
    assert clean(layout, OLD).freed == ()


def test_more_than_the_limit_can_be_needed(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    attested.publish(layout.checkout)
    unit(layout, "core", "c" * 64)
    other = unit(layout, "core", "a" * 64)
    done = clean(layout, Limits(keep_below=1))
    assert [item.path for item in done.freed] == [other]
    assert done.too_much
    assert "remove wheels from the wheelhouse" in capsys.readouterr().out


def test_what_is_used_while_the_user_thinks_stays(layout: Layout) -> None:
    folder, other = unit(layout, "core", "a" * 64), unit(layout, "core", "b" * 64)
    done = clean(layout, OLD, Terminal(meanwhile=lambda: age(folder, 0)))
    assert [item.path for item in done.freed] == [other]
    assert folder.is_dir()


@pytest.mark.parametrize("answer", [False, None])
def test_without_agreement_nothing_is_freed(layout: Layout, *, answer: bool | None) -> None:
    folder = unit(layout, "core", "a" * 64)
    if answer is None:
        with pytest.raises(SettingsError, match="--yes"):
            clean(layout, OLD, Terminal(answer=answer))
    else:
        assert clean(layout, OLD, Terminal(answer=answer)).freed == ()
    assert folder.is_dir()


def test_with_yes_nobody_is_asked(layout: Layout) -> None:
    folder = unit(layout, "core", "a" * 64)
    console = Terminal(answer=None)
    task.clean(task.CleanRequest(limits=OLD, yes=True), layout, console)
    assert not folder.exists()
    assert not console.questions


def test_leftovers_of_killed_runs_are_found(layout: Layout) -> None:
    temporary = Path(tempfile.gettempdir())
    left = {
        put(layout.store / "core" / "a.partial" / "lib.so").parent,
        put(layout.store / "core" / ".trash-b" / "lib.so").parent,
        put(layout.store / ".import-ab12_xyz" / "lib.so").parent,
        put(layout.toolkits / f".cuda-13.0-{'e' * 12}.partial" / "nvcc").parent,
        put(layout.downloads / "a.whl.part"),
        put(layout.downloads / "rejected" / "a.whl"),
        put(layout.work_root.with_name("root.second-ab12_xyz") / "root" / "file").parent.parent,
        put(temporary / "llama-cuda-wheels-ab12_xyz" / "file").parent,
    }
    in_use = put(temporary / "llama-cuda-wheels-bc12_xyz" / "file", days=0.5).parent
    of_users = [
        put(temporary / "another-program" / "file").parent,
        put(temporary / "llama-cuda-wheels-fork" / "file").parent,
        put(temporary / "llama-cuda-wheels-my_clone" / "pyproject.toml").parent,
        put(temporary / "llama-cuda-wheels-checkout" / "pyproject.toml").parent,
        put(layout.work_root.with_name("root.second-12345678") / "lock").parent,
    ]
    for path in (*left, *of_users):
        age(path, 100)
    age(in_use, 0.5)
    done = clean(layout, ALL)
    assert {item.path for item in done.freed if item.kind == inventory.LEFTOVERS} == left
    assert not [path for path in left if path.exists()]
    assert in_use.is_dir()
    assert all(path.is_dir() for path in of_users)


@systems.root_only
def test_a_temporary_folder_of_another_user_stays(layout: Layout) -> None:
    folder = put(Path(tempfile.gettempdir()) / "llama-cuda-wheels-ab12_xyz" / "file").parent
    age(folder, 100)
    os.chown(folder, 1, 1)
    assert clean(layout, ALL).freed == ()
    assert folder.is_dir()


@systems.links
def test_a_link_is_deleted_and_not_followed(layout: Layout, tmp_path: Path) -> None:
    outside = put(tmp_path / "outside" / "file")
    (layout.build / "sm89").mkdir(parents=True)
    (layout.build / "sm89" / "link").symlink_to(outside.parent)
    (layout.build / "core").symlink_to(outside.parent)
    for link in (layout.store / "sm89", layout.work_root / "wine" / "downloads"):
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(outside.parent)
    clean(layout, ALL)
    assert outside.is_file()


@systems.linux_only("under Wine, reading a file changes its times for good")
def test_to_list_a_stored_wheel_is_no_use(layout: Layout) -> None:
    folder = put(layout.store / "wheel" / "k" / "a.whl").parent
    jsonio.write(folder / "wheel.json", "0" * 64)
    age(folder, 100)
    for _ in range(2):
        (found,) = inventory.collect(layout, NOW)
        assert found.used == NOW - 100 * DAY


def test_what_a_process_uses_stays(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wine's tests, for one, claim nothing."""
    folder = put(layout.work_root / "wine" / "windows-1" / "python.exe").parent
    other = put(layout.work_root / "wine" / "windows-2" / "python.exe").parent
    monkeypatch.chdir(folder)
    assert [item.path for item in clean(layout, ALL).freed] == [other]
    assert folder.is_dir()


def test_what_an_earlier_run_began_to_delete_is_not_in_the_way(layout: Layout) -> None:
    left = put(layout.store / "core" / f".trash-{'a' * 32}" / "lib.so", days=90).parent
    age(left, 90)
    folder = unit(layout, "core", "a" * 64, days=100)
    assert {item.path for item in clean(layout, ALL).freed} == {folder, left}
    assert not folder.exists()
    assert not left.exists()


def refused(layout: Layout) -> str:
    folder = unit(layout, "core", "a" * 64)
    console = Terminal()
    with pytest.raises(WorkRootError) as caught:
        clean(layout, ALL, console)
    assert folder.is_dir()
    assert not console.questions
    return caught.value.message


def test_a_folder_without_a_lock_is_refused(layout: Layout) -> None:
    layout.lock_file.unlink()
    if systems.ON_WINDOWS:  # which deletes a lock that is released
        layout.state.rmdir()
    assert "it has no lock" in refused(layout)


def test_a_folder_with_something_else_in_it_is_refused(layout: Layout) -> None:
    (layout.work_root / "holiday.jpg").touch()
    assert "holiday.jpg" in refused(layout)


@systems.links
def test_a_link_in_place_of_a_folder_is_refused(layout: Layout, tmp_path: Path) -> None:
    outside = put(tmp_path / "outside" / "file")
    layout.object_cache.symlink_to(outside.parent)
    assert "links are not followed" in refused(layout)
    assert outside.is_file()


@systems.modes
def test_a_folder_that_others_can_change_is_refused(layout: Layout) -> None:
    layout.work_root.chmod(0o777)
    assert "written to by others" in refused(layout)


def test_the_disk_is_shown_with_the_hits(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    unit(layout, "core", "a" * 64)
    usage.count(layout, usage.UNIT_STORE, usage.Uses(hits=1, asked=4))
    task.show_disk(layout, Console(terminal=False), json=False)
    said = capsys.readouterr().out
    assert re.search(r"^units +1 ", said, re.MULTILINE)
    assert "unit store: 1 of 4 were there (25 %)" in said
    task.show_disk(layout, Console(terminal=False), json=True)
    shown = json.loads(capsys.readouterr().out)
    assert {row["kind"]: row["number"] for row in shown["kinds"]} == {"units": 1, "reports of earlier runs": 1}
    assert [(one["what"], one["hits"], one["asked"]) for one in shown["usage"]] == [("unit store", 1, 4)]


def test_a_missing_work_root_stays_missing(layout: Layout) -> None:
    shutil.rmtree(layout.work_root)
    assert clean(layout, ALL).freed == ()
    assert not layout.work_root.exists()


def test_every_folder_of_the_work_root_is_known() -> None:
    """Whoever adds one says what `clean` does with it."""
    root = Path("root")
    layout = Layout(checkout=Path("checkout"), work_root=root)
    paths = (getattr(layout, name) for name in vars(Layout) if not name.startswith("_"))
    names = {path.parts[1] for path in paths if isinstance(path, Path) and root in path.parents}
    sources = [*PACKAGE.rglob("*.py"), *PACKAGE.parent.glob("ci/**/*.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    names |= set(re.findall(r"(?<!second\.)(?:layout\.work_root|CANONICAL_WORK_ROOT) / \"([\w.-]+)\"", text))
    assert {"store", "assembly", "wine", "sccache.sock"} <= names
    assert names <= set(inventory.CONTENTS) | inventory.KEPT


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30d", 30 * DAY), ("12h", DAY / 2), ("2w", 14 * DAY), ("30", None), ("-1d", None), ("", None)],
)
def test_ages_are_read(text: str, seconds: float | None) -> None:
    if seconds is None:
        with pytest.raises(SettingsError, match="not an age"):
            choice.parse_age(text)
    else:
        assert choice.parse_age(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"), [("20GB", 20 * 10**9), ("1.5gb", 15 * 10**8), ("8GiB", 2**33), ("20", None), ("GB", None)]
)
def test_sizes_are_read(text: str, size: int | None) -> None:
    if size is None:
        with pytest.raises(SettingsError, match="not a size"):
            choice.parse_size(text)
    else:
        assert choice.parse_size(text) == size


# ------------------------------------------------------------------------------------------------------- a long life


def test_a_machine_that_builds_daily_for_a_year(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cleaned once a week, the disk stays below the limit, and the files do not become more: nothing slows down."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # a year of waiting for the disk
    limit = 400 * BLOCK
    entries: list[int] = []
    for day in range(365):
        now = NOW + day * DAY
        monkeypatch.setattr(time, "time", lambda now=now: now)
        today = hashlib.sha256(str(day).encode()).hexdigest()
        made = [
            layout.store / "core" / today[:32] / "lib" / "lib.so",
            layout.store / "wheel" / today[:32] / "a.whl",
            layout.build / "core" / "build.ninja",
            layout.state / "inspection" / f"{today}-0.json",
            layout.logs / "build-core.log",
            *(layout.object_cache / "sccache" / today[place] / f"{today}{place}" for place in range(8)),
        ]
        for path in made:
            put(path, size=4 * BLOCK)
            os.utime(path, (now, now))
        for folder in (made[0].parent, made[0].parent.parent, made[1].parent):
            os.utime(folder, (now, now))
        monkeypatch.setattr(usage, "datetime", Mock(now=lambda _, now=now: datetime.fromtimestamp(now, UTC)))
        usage.count(layout, usage.UNIT_STORE, usage.Uses(hits=1, asked=2))
        if day % 7:
            continue
        done = task.clean(
            task.CleanRequest(limits=Limits(older_than=30 * DAY, keep_below=limit), yes=True), layout, Terminal()
        )
        assert done.left <= limit
        assert not done.too_much
        assert made[0].is_file(), "the newest unit stays"
        entries.append(sum(1 for _ in layout.work_root.rglob("*")))
    assert max(entries[26:]) <= max(entries[:13])
    (uses,) = usage.summary(layout)
    assert (uses.hits, uses.asked) == (usage.DAYS_KEPT, 2 * usage.DAYS_KEPT)


def test_a_killed_clean_leaves_no_half_unit_and_the_next_one_removes_the_rest(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = unit(layout, "core", "a" * 64)

    def stop(path: Path, **_: object) -> object:
        if inventory.TRASH in str(path):
            raise KeyboardInterrupt
        return DEFAULT

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", Mock(wraps=shutil.rmtree, side_effect=stop))
        with pytest.raises(KeyboardInterrupt):
            clean(layout, OLD)
    assert not folder.exists()
    (trash,) = folder.parent.iterdir()
    assert [item.path for item in clean(layout, OLD).freed] == [trash]
    assert not trash.exists()
