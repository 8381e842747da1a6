"""Publish into an index from several processes while others read it, kill publishers, and time a large index.

    python -m measurements.index_under_load [--seconds 60] [--publishers 8] [--readers 50] [--kills 30] [--wheels 500]

Wheels are small ones of this project's shape. Everything happens in a temporary folder. The figures are printed as
JSON; the status is 1 if a reader met a broken page, a missing file or other bytes, or if a wheel is lost. It needs the
requirements of the tests (``nox -s tests`` installs them).
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin

from pypi_simple import ProjectPage

from build_config.model import DISTRIBUTION
from build_config.steps.wheelhouse import publication
from build_config.system.console import Console
from build_config.system.layout import Layout
from build_config.tasks.index import update
from build_config.tasks.publish import PublishRequest, publish
from tests.support import indexed
from tests.support.served import server

if TYPE_CHECKING:
    from collections.abc import Callable

SETS = ("sm75", "sm80", "sm86", "sm89", "sm90", "sm100", "sm120a", "sm86.sm89")
ACCEPT = ("application/vnd.pypi.simple.v1+json", "text/html")
READER_PROCESSES = 2
PATIENCE = 300.0
"""Seconds until a process that gives no answer is an error."""


def prepare(folder: Path, version: str) -> Path:
    """A folder with one wheel and the files about it, as another job leaves them."""
    wheel = indexed.write(folder / "store", version)
    record = indexed.record(wheel, folder / "scratch")
    return publication.publish(wheel, record, record.inspection, record.validation, folder / "job")


def layout(folder: Path) -> Layout:
    """A checkout whose wheelhouse stays empty."""
    return Layout(checkout=folder / "checkout", work_root=folder / "none")


def share(job: Path, index: Path, folder: Path) -> None:
    """What ``nox -s publish -- JOB --to INDEX`` does."""
    publish(PublishRequest(folders=(job,), to=index), layout(folder), Console())


# ------------------------------------------------------------------------------------------- publishers and readers


def publisher(number: int, index: Path, folder: Path, seconds: float, start: Any, done: Any) -> None:
    """Publish one new wheel after the other; ``done`` gets the names whose publication succeeded."""
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115  # until the process ends
    count, published = 0, []
    start.wait()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        version = f"0.{number + 1}.{count}+cu130.{SETS[(number + count) % len(SETS)]}"
        own = folder / f"publisher-{number}-{count}"
        wheel = prepare(own, version)
        share(wheel.parent, index, own)
        published.append(wheel.name)
        count += 1
    done.put(published)


@dataclass
class Reader:
    """Reads the pages of an index as an installer does, and keeps what was wrong."""

    url: str
    choice: random.Random
    seen: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    pages: int = 0
    files: int = 0

    def read(self) -> None:
        """Read a page, and of one of its wheels all files that it names."""
        name = "cu130-" + self.choice.choice(SETS).replace(".", "-")
        accept = self.choice.choice(ACCEPT)
        url = f"{self.url}{name}/{DISTRIBUTION}/"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept})) as answer:  # noqa: S310  # http only
                kind, body = answer.headers["Content-Type"], answer.read()
        except urllib.error.HTTPError as error:
            if error.code != 404 or (name, accept) in self.seen:  # noqa: PLR2004  # before its first wheel
                self.problems.append(f"{url}: {error}")
            return
        self.pages += 1
        page = (
            ProjectPage.from_json_data(json.loads(body), base_url=url)
            if "json" in kind
            else ProjectPage.from_html(DISTRIBUTION, body, base_url=url)
        )
        names = {each.filename for each in page.packages}
        if lost := self.seen.get((name, accept), set()) - names:
            self.problems.append(f"{url} lost {sorted(lost)}")
        self.seen[name, accept] = names
        if not names or (kind == "text/html" and b"</html>" not in body):
            self.problems.append(f"{url} is broken: {body[-80:]!r}")
            return
        each = self.choice.choice(page.packages)
        self.compare(each.url.partition("#")[0], each.digests["sha256"])
        self.compare(each.url.partition("#")[0] + ".metadata", (each.metadata_digests or {}).get("sha256"))

    def catalogue(self) -> None:
        """Read the catalogue, the page for people, and one record."""
        with urllib.request.urlopen(urljoin(self.url, "index.json")) as answer:  # noqa: S310  # http only
            wheels = json.load(answer)["wheels"]
        with urllib.request.urlopen(self.url) as answer:  # noqa: S310
            if b"</html>" not in answer.read():
                self.problems.append("the page for people is broken")
        if wheels:
            record = self.choice.choice(wheels)["record"].replace("+", "%2B")
            with urllib.request.urlopen(f"{self.url}files/{record}") as answer:  # noqa: S310
                json.load(answer)
        self.pages += 2

    def compare(self, url: str, sha256: str | None) -> None:
        """Fetch a file; its bytes must have the digest."""
        self.files += 1
        try:
            with urllib.request.urlopen(url) as answer:  # noqa: S310
                found = hashlib.sha256(answer.read()).hexdigest()
        except urllib.error.URLError as error:
            self.problems.append(f"{unquote(url)}: {error}")
            return
        if found != sha256:
            self.problems.append(f"{unquote(url)} has {found}, the page says {sha256}")


def read(url: str, readers: int, seed: int, seconds: float, start: Any, done: Any) -> None:
    """Readers as threads of this process; ``done`` gets their problems and counts."""
    all_readers = [Reader(url, random.Random(seed + number)) for number in range(readers)]  # noqa: S311  # which page is next

    start.wait()
    until = time.monotonic() + seconds

    def run(reader: Reader) -> None:
        while time.monotonic() < until:
            try:
                reader.read()
                if reader.choice.random() < 0.1:  # noqa: PLR2004
                    reader.catalogue()
            except (OSError, ValueError, KeyError) as error:
                reader.problems.append(repr(error))

    threads = [threading.Thread(target=run, args=(reader,)) for reader in all_readers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    problems = [problem for reader in all_readers for problem in reader.problems]
    done.put((problems, sum(r.pages for r in all_readers), sum(r.files for r in all_readers)))


def together(folder: Path, *, kind: str, seconds: float, publishers: int, readers: int) -> dict[str, Any]:
    """Publishers and readers at once, for some seconds."""
    index = folder / "index"
    first = prepare(folder / "first", "0.0.1+cu130.sm89")
    share(first.parent, index, folder)
    context = multiprocessing.get_context("fork")
    wheels, results = context.Queue(), context.Queue()
    with server(index, kind) as url:
        start = context.Barrier(publishers + READER_PROCESSES)
        writing = [
            context.Process(target=publisher, args=(number, index, folder, seconds, start, wheels))
            for number in range(publishers)
        ]
        shares = [len(range(number, readers, READER_PROCESSES)) for number in range(READER_PROCESSES)]
        reading = [
            context.Process(target=read, args=(url, share_, 1000 * number, seconds, start, results))
            for number, share_ in enumerate(shares)
        ]
        for process in (*writing, *reading):
            process.start()
        patience = seconds + PATIENCE
        answers = [results.get(timeout=patience) for _ in reading]
        published = {first.name}.union(*(wheels.get(timeout=patience) for _ in writing))
        for process in (*writing, *reading):
            process.join()
    problems = [problem for listed, _, _ in answers for problem in listed]
    problems += [f"a process ended with {one.exitcode}" for one in (*writing, *reading) if one.exitcode]
    problems += [f"lost: {name}" for name in sorted(published - indexed.listed(index))]
    indexed.assert_whole(index)
    return {
        "server": kind,
        "published": len(published),
        "pages read": sum(pages for _, pages, _ in answers),
        "files read and compared": sum(files for _, _, files in answers),
        "problems": problems,
    }


# ------------------------------------------------------------------------------------------------------------- kills


def killed(stop_at: int, job: Path, index: Path, folder: Path) -> None:
    """Publish, and die by SIGKILL before the given change of the folder, counted from 1."""
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115  # until the process ends
    changes = 0

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*arguments: Any, **named: Any) -> Any:
            nonlocal changes
            changes += 1
            if changes == stop_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **named)

        return changed

    for owner, name in ((Path, "replace"), (Path, "unlink"), (Path, "mkdir"), (Path, "chmod"), (os, "fsync")):
        setattr(owner, name, dying(getattr(owner, name)))
    share(job, index, folder)


def kills(folder: Path, points: int) -> dict[str, Any]:
    """Kill a publisher before each of its first changes of the folder; the same call then finishes the publication."""
    context = multiprocessing.get_context("fork")
    index = folder / "index"
    share(prepare(folder / "first", "0.0.1+cu130.sm89").parent, index, folder)
    died, problems = 0, []
    for point in range(1, points + 1):
        own = folder / str(point)
        wheel = prepare(own, f"0.1.{point}+cu130.sm89")
        before = indexed.listed(index)
        process = context.Process(target=killed, args=(point, wheel.parent, index, own))
        process.start()
        process.join()
        died += process.exitcode == -signal.SIGKILL
        try:
            indexed.assert_whole(index)
        except (AssertionError, OSError, ValueError) as error:
            problems.append(f"point {point}: {error!r}")
        if lost := before - indexed.listed(index):
            problems.append(f"point {point}: lost {sorted(lost)}")
        share(wheel.parent, index, own)
        if wheel.name not in indexed.listed(index):
            problems.append(f"point {point}: not published by the same call again")
    again = indexed.contents(index)
    update.write(layout(folder), Console(), out=index)
    if indexed.contents(index) != again:
        problems.append("made again from its files, the index has other bytes")
    left = [path.name for path in index.rglob(".*.part")]
    return {"killed": died, "points": points, "left over": left, "problems": problems}


# ----------------------------------------------------------------------------------------------------------- seconds


def large(folder: Path, number: int) -> dict[str, Any]:
    """Seconds for a whole index of so many wheels, and for one more."""
    house = indexed.House(folder / "checkout")
    house.layout.wheelhouse.mkdir(parents=True)
    for count in range(number):
        made = prepare(folder / "one", f"0.3.{count // len(SETS)}+cu130.{SETS[count % len(SETS)]}")
        for path in made.parent.glob(f"{made.name}*"):
            path.replace(house.layout.wheelhouse / path.name)
    timed = {}

    def time_it(what: str, call: Callable[[], object]) -> None:
        start = time.monotonic(), time.process_time()
        call()
        timed[f"{what}, seconds"] = round(time.monotonic() - start[0], 2)
        timed[f"{what}, of the processor"] = round(time.process_time() - start[1], 2)

    time_it("whole index", house.write)
    time_it("all pages again", house.write)
    more = prepare(folder / "more", "0.4.0+cu130.sm89")
    time_it(
        "one more", lambda: publish(PublishRequest(folders=(more.parent,), to=house.index), house.layout, Console())
    )
    indexed.assert_whole(house.index)
    page = (house.index / "index.html").stat().st_size
    return {"wheels": number, **timed, "page for people, bytes": page}


def main() -> int:
    """Print the figures; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description="Publish, read and kill: is an index whole at every moment?")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--publishers", type=int, default=8)
    parser.add_argument("--readers", type=int, default=50)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--wheels", type=int, default=500)
    parser.add_argument("--parts", nargs="*", default=["large", "kills", "together"])
    parser.add_argument("--servers", nargs="*", default=["http.server", "serve"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        silent, sys.stdout = sys.stdout, open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
        load: dict[str, Any] = {
            "seconds": options.seconds,
            "publishers": options.publishers,
            "readers": options.readers,
        }
        parts: dict[str, Callable[[], Any]] = {
            "large": lambda: large(work / "large", options.wheels),
            "kills": lambda: kills(work / "kills", options.kills),
            **{
                f"together, {kind}": functools.partial(together, work / kind, kind=kind, **load)
                for kind in options.servers
            },
        }
        results = {name: make() for name, make in parts.items() if name.partition(",")[0] in options.parts}
        sys.stdout = silent
    sys.stdout.write(json.dumps(results, indent=2) + "\n")
    return 1 if any(one.get("problems") for one in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
