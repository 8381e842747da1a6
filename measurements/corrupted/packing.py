"""Corrupted inputs that no compiler reads: a wheel of the toolkit, the lock, a time in the finished wheel."""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
import struct
import zipfile
from typing import TYPE_CHECKING
from unittest import mock

import tomli_w
from pypi_simple import PyPISimple

from build_config import inputs
from build_config.steps import locks
from build_config.steps.locks import download
from build_config.steps.toolchain import locked_cuda
from build_config.steps.units.spec import shard_spec
from build_config.system import platforms
from build_config.tasks import reproduce, verify
from build_config.tasks.reproduce import ReproduceRequest, difference
from measurements.corrupted.bench import CUDA, Bench, Seen, edited
from tests.support import local_index

if TYPE_CHECKING:
    from build_config.model import LockedFile

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
    bench.expect_refused(f"{WHEEL} {other.version} as {locked.version}, verified before", named, provide)
    shutil.copyfile(fetched, there)
    (layout.downloads / download.VERIFIED).unlink()
    bench.expect_refused(f"{WHEEL} {other.version} as {locked.version}, not listed as verified", named, provide)
    with local_index.serve() as index:
        index.files[locked.filename] = fetched.read_bytes()
        with mock.patch.dict(os.environ, PIP_INDEX_URL=index.url):
            bench.expect_refused(f"the index serves {other.version} as {locked.version}", named, provide)
    with mock.patch.dict(os.environ, PIP_INDEX_URL=NO_INDEX):
        bench.expect_refused("the refused wheel was moved aside, without a network", (locked.filename,), provide)

    def again() -> Seen:
        identity = provide().identity
        equal = identity == bench.chain.cuda.identity and there.stat().st_size == locked.size
        return equal, (f"{locked.filename} downloaded again, toolkit {identity}",)

    bench.expect("with a network: run again", (locked.filename,), again)
    lock = layout.locks / locks.toolkit_lock_name(CUDA, platforms.HERE.name)
    listed, replaced = (tomli_w.dumps(dataclasses.asdict(file)) for file in (locked, other))
    with edited(lock, listed, replaced):
        changed = locks.read_toolkit_lock(layout, CUDA, platforms.HERE.name)
        cuda = dataclasses.replace(bench.chain.cuda, identity=locked_cuda.lock_digest(changed))
        chain = dataclasses.replace(bench.chain, cuda=cuda)
        project = dict(bench.spec.key.inputs)["wheel project"]
        what = f"{WHEEL} {other.version} in the lock"
        settings = bench.plan.settings
        respecify = functools.partial(shard_spec, settings, bench.tree, layout, chain, project, bench.shard)
        bench.expect_another_key(what, ("cuda",), respecify)
        rebuild = functools.partial(reproduce.reproduce, ReproduceRequest(record=bench.record), layout, bench.console)
        bench.expect_refused(f"{what}: reproduce --record", (lock.name,), rebuild)
        check = functools.partial(verify.verify, bench.published, layout, bench.console)
        bench.expect_refused(f"{what}: verify", (lock.name, locked.filename), check)


def other_version(locked: LockedFile) -> LockedFile:
    """Find another version, of the same release, of the same wheel for the same machines."""
    with PyPISimple(download.index_url()) as index:
        packages = download.project_page(index, locked.name).packages
    for package in packages:
        version = package.version or locked.version
        name = locked.filename.replace(locked.version, version)
        if version.startswith(f"{CUDA}.") and version != locked.version and package.filename == name:
            digest = package.digests["sha256"]
            return dataclasses.replace(locked, version=version, filename=name, sha256=digest, size=package.size or 0)
    raise SystemExit(f"the index has no other version of {locked.filename}")


def time_stamp(bench: Bench) -> None:
    """Set a time stamp in the zip, for one member of the published wheel."""
    wheel = bench.published
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
    folder, cuobjdump = bench.layout.work_root / "differences", bench.chain.cuobjdump
    compare = functools.partial(difference.compare_wheels, wheel, stamped, cuobjdump=cuobjdump, folder=folder)
    bench.expect_different("a time stamp in the wheel", (STAMPED, "2026-11-25 12:00:00"), compare)
    check = functools.partial(verify.verify, stamped, bench.layout, bench.console)
    bench.expect_refused("a time stamp in the wheel: verify", (stamped.name, "wheel-not-recorded"), check)

    def accepted() -> Seen:
        verify.verify(wheel, bench.layout, bench.console)
        return True, ("accepted",)

    bench.expect("the published wheel: verify", ("accepted",), accepted)
