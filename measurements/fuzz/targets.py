"""The parsers, each with sound inputs to start from and the errors by which it may end."""

from __future__ import annotations

import io
import struct
import sysconfig
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import distlib  # type: ignore[import-untyped]

from build_config.errors import LockError, PackagingError, StepResultError
from build_config.formats import build_facts, elf, pe, tar, wheelfile
from build_config.formats.elf import UnreadableElfError
from build_config.formats.pe import UnreadableDllError
from build_config.reports import BuildRecord
from build_config.steps import locks
from build_config.steps.inspection import archive, device_code
from build_config.steps.inspection.contents import NotRunError
from build_config.steps.toolchain.windows import msvc
from build_config.steps.units import object_cache, progress, system_headers
from build_config.steps.wheelhouse import signature, statement
from build_config.system import jsonio
from build_config.system.layout import PACKAGE
from build_config.testbed import synthetic_model
from build_config.testbed.emulated_device import ptx_module
from build_config.testbed.emulated_device.ptx_source import PtxError
from check_gpu import device_code as fat_binary
from check_gpu import elf as plain_elf
from check_gpu import gguf, log_file, placement
from check_gpu import pe as plain_pe
from tests.support import attested, dll_files, elf_files, factories, wheels

if TYPE_CHECKING:
    from collections.abc import Iterator

SUPPORT = PACKAGE.parent / "tests" / "support"
LOCKS = PACKAGE / "data" / "locks"
MEMBER = f"{wheels.DIST_INFO}/METADATA"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A parser: ``run`` feeds it with an input; ``allowed`` are the errors that are its own."""

    name: str
    seeds: Callable[[], tuple[bytes, ...]]
    run: Callable[[bytes], object]
    allowed: tuple[type[BaseException], ...]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _through_a_file(run: Callable[[Path], object], name: str = "input") -> Callable[[bytes], object]:
    """For a parser that takes a path."""
    folder = tempfile.TemporaryDirectory(prefix="fuzz-")
    path = Path(folder.name, name)

    def call(data: bytes, _: object = folder) -> object:  # the folder lives as long as this function
        path.write_bytes(data)
        return run(path)

    return call


def _untar(path: Path) -> None:
    """Unpack it; nothing may appear outside the folder."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        target = Path(folder, "target")
        try:
            tar.extract_tar(path, target)
        finally:
            outside = [found for found in Path(folder).iterdir() if found != target]
            if outside:
                raise AssertionError(outside)


# ----------------------------------------------------------------------------------------------------------- seeds


def _elf() -> tuple[bytes, ...]:
    needed = elf_files.dynamic((1, "libc.so.6"), (14, "liba.so"), (29, "$ORIGIN"))
    small = elf_files.elf_file(elf_files.TEXT, *elf_files.FUNCTIONS, *needed, elf_files.build_id("00" * 20))
    folder = Path(sysconfig.get_config_var("DESTSHARED") or "")  # Python's own modules in C
    modules = sorted(folder.glob("*.so"), key=lambda one: one.stat().st_size)
    return (small, elf_files.elf_file(), *(path.read_bytes() for path in modules[:1]))


def _pe() -> tuple[bytes, ...]:
    """The launcher of distlib, which virtualenv brings, called a DLL."""
    data = bytearray((Path(distlib.__file__).parent / "t64.exe").read_bytes())
    header = int.from_bytes(data[0x3C:0x40], "little")
    data[header + 23] |= pe.DLL >> 8
    return (bytes(data),)


def _small_dll() -> bytes:
    return dll_files.dll_file({".nv_fatb": b"code" * 100}, needed=("a.dll", "b.dll"), delayed=("c.dll",))


def _gguf() -> tuple[bytes, ...]:
    with tempfile.TemporaryDirectory() as folder:
        model = synthetic_model.write(Path(folder, "model.gguf")).read_bytes()
    nested = b"GGUF" + (3).to_bytes(4, "little") + (0).to_bytes(8, "little") + (1).to_bytes(8, "little")
    nested += (1).to_bytes(8, "little") + b"a" + (9).to_bytes(4, "little")
    nested += ((9).to_bytes(4, "little") + (1).to_bytes(8, "little")) * 3000
    return model[:40_000], model[:6000], nested


def _fat() -> tuple[bytes, ...]:
    payload = b"code" * 8

    def entry(kind: int, number: int, flags: int) -> bytes:
        numbers = (kind, 0x101, 64, len(payload), 0, 0, 8, 1, number, 0, 0, flags, 0, 0)
        return struct.pack("<HHIQIIHHIIIQQQ", *numbers) + payload

    whole = entry(2, 89, 0x11) + entry(1, 90, 0x41) + entry(2, 120, 1 << 20)
    section = struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(whole)) + whole
    return section, section + bytes(24) + section


def _logs() -> tuple[bytes, ...]:
    return tuple(path.read_bytes() for path in sorted((SUPPORT / "model_logs").glob("*.txt")))


def _published() -> Iterator[tuple[str, bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        house = attested.publish(Path(folder))
        for name, path in house.files().items():
            yield name, path.read_bytes()


def _of_a_wheel(name: str) -> Callable[[], tuple[bytes, ...]]:
    return lambda: (dict(_published())[name],)


def _members() -> dict[str, bytes]:
    members = wheels.contents({"libllama.so": b"code" * 100})
    return {**members, f"{wheels.DIST_INFO}/RECORD": wheels.record(members)}


def _tar() -> tuple[bytes, ...]:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:", format=tarfile.PAX_FORMAT) as made:
        for name, kind in (("a/b", tarfile.REGTYPE), ("ü" * 120, tarfile.REGTYPE), ("d", tarfile.DIRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.size = kind, 4 if kind == tarfile.REGTYPE else 0
            made.addfile(member, io.BytesIO(b"text"))
    return (data.getvalue(),)


PTX = b""".version 9.0
.target sm_89
.address_size 64
.extern .shared .align 16 .b8 shared[];
.global .align 4 .u32 table[4] = {1, 2, 3, 4};
.visible .entry kernel(.param .u64 first, .param .u32 second)
{
.reg .pred %p<2>;
.reg .b32 %r<4>;
.reg .b64 %rd<3>;
ld.param.u64 %rd1, [first];
mov.u32 %r1, %tid.x;
setp.ge.u32 %p1, %r1, 7;
@%p1 bra $L1;
add.s32 %r2, %r1, 1;
st.global.u32 [%rd1+4], %r2;
$L1:
ret;
}
"""


def _record_problems(data: bytes) -> object:
    return wheelfile.record_problems({**_MEMBERS, f"{wheels.DIST_INFO}/RECORD": data})


def _lock(name: str) -> Callable[[bytes], object]:
    sound = locks.contents(LOCKS)

    def read(data: bytes) -> object:
        files = {**sound, name: data}
        if name.endswith(".txt"):
            return list(locks.read_pins(files, name))
        return (
            locks.read_source(files) if name == locks.SOURCE_LOCK else locks.read_toolkit(files, "13.0", "linux-x86_64")
        )

    return read


_MEMBERS = _members()
RECORD = f"{wheels.DIST_INFO}/RECORD"
LISTING = b"ELF file    1: a.1.sm_89.cubin\nELF file    2: a.2.sm_120a.cubin\nPTX file    1: a.1.sm_90.ptx\n"
NINJA = b"# ninja log v5\n0\t15\t1700000000\tsrc/a.o\tabc\n3\t99\t1700000000\tsrc/b.o\tdef\n"
STATS = b'{"stats": {"cache_hits": {"counts": {"CUDA": 3}}, "cache_misses": {"counts": {"C/C++": 5}}}}'
HEADERS = b"a.o: #deps 3, deps mtime 1 (VALID)\n    ../a.c\n    /usr/include/stdio.h\n    /usr/include/a b.h\n\n"
NAMES = (b"llama_cpp_python-0.3.36+cu130.sm89-py3-none-manylinux_2_34_x86_64.whl", b"a-1-1-py2.py3-none-any.whl")


def _json(run: Callable[[Any], object]) -> Callable[[bytes], object]:
    return lambda data: run(_text(data))


def _lines(run: Callable[[list[str]], object]) -> Callable[[bytes], object]:
    return lambda data: run(_text(data).splitlines())


TARGETS = (
    Target(name="ELF of check_gpu", seeds=_elf, run=plain_elf.read, allowed=(plain_elf.UnreadableError,)),
    Target(name="ELF", seeds=_elf, run=elf.read, allowed=(UnreadableElfError,)),
    Target(
        name="PE of check_gpu",
        seeds=lambda: (_small_dll(), *_pe()),
        run=plain_pe.read,
        allowed=(plain_elf.UnreadableError,),
    ),
    Target(name="PE", seeds=_pe, run=pe.read, allowed=(UnreadableDllError,)),
    Target(
        name="fat binary",
        seeds=_fat,
        run=lambda data: list(fat_binary.read(data)),
        allowed=(plain_elf.UnreadableError,),
    ),
    Target(name="GGUF", seeds=_gguf, run=gguf.layers, allowed=(gguf.UnreadableError,)),
    Target(name="log file", seeds=_logs, run=_through_a_file(log_file.read), allowed=(OSError,)),
    Target(name="placement", seeds=_logs, run=_lines(placement.parse), allowed=()),
    Target(name="cuobjdump's list", seeds=lambda: (LISTING,), run=_lines(device_code.parse_listing), allowed=()),
    Target(
        name="PTX",
        seeds=lambda: (PTX,),
        run=lambda data: ptx_module.read_module(_text(data), "a.ptx"),
        allowed=(PtxError,),
    ),
    Target(
        name="name of a wheel",
        seeds=lambda: NAMES,
        run=lambda data: wheelfile.read(Path(_text(data).replace("/", "_").replace("\0", "_")[:200] or "x")),
        allowed=(PackagingError,),
    ),
    Target(
        name="wheel",
        seeds=_of_a_wheel("wheel"),
        run=_through_a_file(wheelfile.read_contents, "a.whl"),
        allowed=(PackagingError,),
    ),
    Target(name="RECORD", seeds=lambda: (_MEMBERS[RECORD],), run=_record_problems, allowed=()),
    Target(
        name="METADATA",
        seeds=lambda: (_MEMBERS[MEMBER],),
        run=lambda data: archive.read_metadata({**_MEMBERS, MEMBER: data}),
        allowed=(NotRunError,),
    ),
    Target(
        name="facts of a build",
        seeds=lambda: (build_facts.text(factories.build_facts("89", "86+120")).encode(),),
        run=build_facts.parse,
        allowed=(PackagingError,),
    ),
    Target(
        name="record",
        seeds=_of_a_wheel("record"),
        run=_through_a_file(lambda path: jsonio.read(path, BuildRecord)),
        allowed=(StepResultError,),
    ),
    Target(
        name="envelope",
        seeds=_of_a_wheel("envelope"),
        run=_json(lambda text: signature.unverified_payload(text, statement.PAYLOAD_TYPE)),
        allowed=(signature.UnsignedError,),
    ),
    *(
        Target(
            name=f"lock {name}",
            seeds=lambda name=name: ((LOCKS / name).read_bytes()[:8000],),  # type: ignore[misc]
            run=_lock(name),
            allowed=(LockError,),
        )
        for name in (locks.SOURCE_LOCK, "cuda-13.0-linux-x86_64.toml", "requirements.txt")
    ),
    Target(name="tar", seeds=_tar, run=_through_a_file(_untar, "a.tar"), allowed=(LockError, OSError)),
    Target(
        name="vswhere's JSON",
        seeds=lambda: ((SUPPORT / "windows" / "vswhere.json").read_bytes(),),
        run=_json(msvc.parse_vswhere),
        allowed=(*jsonio.NOT_JSON, LookupError, TypeError),
    ),
    Target(
        name="sccache's statistics",
        seeds=lambda: (STATS,),
        run=_json(object_cache.parse_sccache),
        allowed=(ValueError,),
    ),
    Target(name="Ninja's log", seeds=lambda: (NINJA,), run=_json(progress.parse_ninja_log), allowed=()),
    Target(
        name="Ninja's list of headers",
        seeds=lambda: (HEADERS,),
        run=_lines(lambda lines: system_headers.parse(lines, Path("/build"))),
        allowed=(),
    ),
)
