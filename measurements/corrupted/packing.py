"""Corrupted inputs that no compiler reads: a wheel of the toolkit, the lock, a time in the finished wheel."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import shutil
import struct
import time
import zipfile
from typing import TYPE_CHECKING

from pypi_simple import PyPISimple

from build_config import inputs
from build_config.model import LockedFile
from build_config.steps import locks
from build_config.steps.locks import download
from build_config.steps.toolchain import locked_cuda
from build_config.steps.units.spec import shard_spec
from build_config.system import platforms
from build_config.tasks import reproduce, verify
from build_config.tasks.reproduce import ReproduceRequest, difference
from measurements.corrupted.bench import CUDA, Bench, changed_inputs, published
from tests.support import local_index

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from build_config.system.layout import Layout

WHEEL = "nvidia-cuda-crt"
"""A small wheel of the toolkit, with headers that every CUDA file includes."""
STAMPED = "llama_cpp/llama.py"
STAMP = (2026, 11, 25, 12, 0, 0)
NO_INDEX = "http://127.0.0.1:9/simple/"
CENTRAL_ENTRY = struct.calcsize("<4s4B4HL2L5H2L")
TIME_IN_LOCAL_HEADER, TIME_IN_CENTRAL_ENTRY = 10, 12


def another_wheel(bench: Bench) -> None:
    """Put another version of a toolkit wheel under the name of the locked one; then into the lock itself."""
    layout = bench.layout
    toolkit = locks.read_toolkit_lock(layout, CUDA, platforms.HERE.name)
    locked = next(file for file in toolkit.files if file.name == WHEEL)
    other = other_version(locked)
    (fetched,) = download.fetch((other,), layout.work_root / "other", bench.console)
    there = layout.downloads / locked.filename
    provide = functools.partial(inputs.provide_toolkit, bench.plan.toolkit, layout, bench.console)
    named = (locked.filename, other.sha256)

    shutil.copyfile(fetched, there)
    bench.expect_refused(f"{WHEEL} {other.version} as {locked.version}, verified before", provide, named)
    shutil.copyfile(fetched, there)
    (layout.downloads / download.VERIFIED).unlink()
    bench.expect_refused(f"{WHEEL} {other.version} as {locked.version}, not listed as verified", provide, named)
    with local_index.serve() as index:
        index.files[locked.filename] = fetched.read_bytes()
        with package_index(index.url):
            bench.expect_refused(f"the index serves {other.version} as {locked.version}", provide, named)
    with package_index(NO_INDEX):
        bench.expect_refused("the refused wheel was moved aside, without a network", provide, (locked.filename,))
    started = time.monotonic()
    again = provide()
    equal = again.identity == bench.chain.cuda.identity and there.stat().st_size == locked.size
    said = (f"{locked.filename} downloaded again, toolkit {again.identity}",)
    bench.show("with a network: run again", said, started, named=(locked.filename,), caught=equal)

    with relocked(layout, locked, other):
        changed = locks.read_toolkit_lock(layout, CUDA, platforms.HERE.name)
        cuda = dataclasses.replace(bench.chain.cuda, identity=locked_cuda.lock_digest(changed))
        chain = dataclasses.replace(bench.chain, cuda=cuda)
        project = dict(bench.spec.key.inputs)["wheel project"]
        spec = shard_spec(bench.plan.settings, bench.tree, layout, chain, project, bench.shard)
        changed_keys = changed_inputs(bench, spec)
        what = f"{WHEEL} {other.version} in the lock"
        bench.show(f"{what}: the unit's key", changed_keys, started, named=("cuda",), caught=bool(changed_keys))
        wheel = published(bench)
        record = ReproduceRequest(record=wheel.with_name(f"{wheel.name}.record.json"))
        rebuild = functools.partial(reproduce.reproduce, record, layout, bench.console)
        bench.expect_refused(f"{what}: reproduce --record", rebuild, (file_of_lock(layout).name,))
        check = functools.partial(verify.verify, wheel, layout, bench.console)
        bench.expect_refused(f"{what}: verify", check, (file_of_lock(layout).name, locked.filename))


def other_version(locked: LockedFile) -> LockedFile:
    """Find another version, of the same release, of the same wheel for the same machines."""
    with PyPISimple(download.index_url()) as index:
        packages = download.project_page(index, locked.name).packages
    for package in packages:
        version = package.version or locked.version
        name = locked.filename.replace(locked.version, version)
        if version.startswith(f"{CUDA}.") and version != locked.version and package.filename == name:
            return LockedFile(
                name=locked.name,
                version=version,
                filename=name,
                sha256=package.digests["sha256"],
                size=package.size or 0,
            )
    raise SystemExit(f"the index has no other version of {locked.filename}")


def file_of_lock(layout: Layout) -> Path:
    """The lock file of the toolkit."""
    return layout.locks / f"cuda-{CUDA}-{platforms.HERE.name}.toml"


@contextlib.contextmanager
def relocked(layout: Layout, locked: LockedFile, other: LockedFile) -> Iterator[None]:
    """Change the version of one wheel in the lock of this environment's checkout."""
    file = file_of_lock(layout)
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace(entry(locked), entry(other)), encoding="utf-8")
    try:
        yield
    finally:
        file.write_text(text, encoding="utf-8")


def entry(file: LockedFile) -> str:
    """The entry of one file in the lock."""
    return "\n".join(
        f"{name} = {value}" if isinstance(value, int) else f'{name} = "{value}"'
        for name, value in dataclasses.asdict(file).items()
    )


@contextlib.contextmanager
def package_index(url: str) -> Iterator[None]:
    """Download everything from this index."""
    before = os.environ.get("PIP_INDEX_URL")
    os.environ["PIP_INDEX_URL"] = url
    try:
        yield
    finally:
        del os.environ["PIP_INDEX_URL"]
        if before is not None:
            os.environ["PIP_INDEX_URL"] = before


def time_stamp(bench: Bench) -> None:
    """Set a time stamp in the zip, for one member of the published wheel."""
    wheel = published(bench)
    stamped = bench.given / "stamped" / wheel.name
    shutil.copytree(wheel.parent, stamped.parent)
    with zipfile.ZipFile(wheel) as archive:
        header = archive.getinfo(STAMPED).header_offset
    data = bytearray(wheel.read_bytes())
    central = data.rindex(STAMPED.encode()) - CENTRAL_ENTRY
    year, month, day, hour, minute, second = STAMP
    packed = struct.pack("<HH", hour << 11 | minute << 5 | second // 2, (year - 1980) << 9 | month << 5 | day)
    for at in (header + TIME_IN_LOCAL_HEADER, central + TIME_IN_CENTRAL_ENTRY):
        data[at : at + len(packed)] = packed
    stamped.write_bytes(data)
    started = time.monotonic()
    found = difference.compare_wheels(
        wheel, stamped, cuobjdump=bench.chain.cuobjdump, folder=bench.layout.work_root / "differences"
    )
    bench.expect_different("a time stamp in the wheel", found, started, (STAMPED, "2026-11-25 12:00:00"))
    check = functools.partial(verify.verify, stamped, bench.layout, bench.console)
    bench.expect_refused("a time stamp in the wheel: verify", check, (stamped.name, "wheel-not-recorded"))
    started = time.monotonic()
    verify_published = functools.partial(verify.verify, wheel, bench.layout, bench.console)
    verify_published()
    bench.show("the published wheel: verify", ("accepted",), started, named=("accepted",), caught=True)
