"""Which headers a unit was compiled with: read from Ninja's list, and told apart by where they lie."""

from pathlib import Path

import pytest

from build_config.model import SystemHeaders
from build_config.steps.units import system_headers
from tests.support import factories

# As Ninja 1.13 lists them; the second file is named relative to the build folder. What was linked is there with the
# linker of Debian 13.
LISTING = """\
CMakeFiles/a.dir/a.cpp.o: #deps 3, deps mtime 1790000000000000000 (VALID)
    /usr/include/stdio.h
    generated/version.h
    /w/build/core/../../src/a.h

CMakeFiles/a.dir/b.cpp.o: #deps 1, deps mtime 1790000000000000000 (VALID)
    /usr/include/stdio.h

bin/liba.so: #deps 2, deps mtime 1790000000000000000 (VALID)
    /lib/x86_64-linux-gnu/libc.so.6
    CMakeFiles/a.dir/a.cpp.o

"""


def test_ninjas_list_is_read() -> None:
    found = system_headers.parse(LISTING.splitlines(), Path("/w/build/core"))
    assert [path.as_posix() for path in found] == [
        "/usr/include/stdio.h",
        "/w/build/core/generated/version.h",
        "/w/src/a.h",
    ]


def test_no_list_is_no_header() -> None:
    assert system_headers.parse((), Path("/w")) == ()


EXPECTED = (
    "/usr/include/stdio.h",
    "/usr/include/x86_64-linux-gnu/bits/types.h",
    "/usr/include/x86_64-linux-gnu/sys/types.h",
    "/usr/include/linux/errno.h",
    "/usr/include/c++/12/vector",
    "/usr/include/x86_64-linux-gnu/c++/12/bits/c++config.h",
    "/usr/lib/gcc/x86_64-linux-gnu/12/include/immintrin.h",
    "/usr/lib/linux/uapi/x86/asm/errno.h",
    "/opt/rh/gcc-toolset-14/root/usr/include/c++/14/vector",
    "/opt/rh/gcc-toolset-14/root/usr/lib/gcc/x86_64-redhat-linux/14/include/stddef.h",
    "/opt/conda/x86_64-conda-linux-gnu/sysroot/usr/include/stdlib.h",
)
UNEXPECTED = (
    "/usr/include/nvtx3/nvToolsExt.h",
    "/usr/include/zlib.h",
    "/usr/local/include/stdio.h",
    "/home/ada/include/c++/12.h",
    "/opt/boost/include/boost/config.hpp",
)


@pytest.mark.parametrize("path", EXPECTED + UNEXPECTED)
def test_the_systems_own_are_expected_and_others_are_not(path: str) -> None:
    known = frozenset({"stdio.h", "stdlib.h", "bits", "sys", "linux"})
    assert system_headers._systems(Path(path), known) is (path in EXPECTED)


def test_what_is_locked_is_left_out_and_the_rest_is_in_the_digest(tmp_path: Path) -> None:
    layout = factories.layout(tmp_path / "work")
    paths = [
        tmp_path / place / "one.h" for place in ("work/src", "toolkit/include", "studio/include", "usr/local/include")
    ]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.write_text(path.parent.as_posix())

    def found() -> SystemHeaders:
        return system_headers.describe(
            paths, layout, inputs=(tmp_path / "toolkit",), expected=(tmp_path / "studio" / "include",)
        )

    first = found()
    assert (first.number, first.unexpected) == (2, (paths[3],))
    paths[0].write_text("changed")
    assert found() == first, "the sources have a digest of their own"
    paths[2].write_text("changed")
    assert found().sha256 != first.sha256
    assert found().unexpected == first.unexpected
    paths[3].unlink()
    assert (found().number, found().unexpected) == (2, first.unexpected)
