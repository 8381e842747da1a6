"""A small file in place of a finished wheel, with matching record and reports."""

import hashlib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

from packaging.version import Version

from build_config.model import Wheel
from build_config.reports import BuildRecord, InspectionReport, ValidationReport, Verdict
from tests.support import factories

TAG = "py3-none-manylinux_2_34_x86_64"
Made = tuple[Wheel, BuildRecord, InspectionReport, ValidationReport]


def make(folder: Path, content: bytes = b"wheel", version: str = "0.3.36+cu130.sm89", tag: str = TAG) -> Made:
    folder.mkdir(exist_ok=True)
    path = folder / f"llama_cpp_python-{version}-{tag}.whl"
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    wheel = Wheel(path=path, version=Version(version), tags=(tag,), sha256=digest, size=len(content))
    inspection = InspectionReport(wheel_sha256=digest, checks=("rpath",), findings=())
    validation = ValidationReport(
        wheel_sha256=digest,
        verdict=Verdict.CPU_FALLBACK_VERIFIED,
        machine=factories.MACHINE,
        scenarios=(),
        decisive=None,
        device_checks=(),
        findings=(),
        seconds=1.0,
    )
    record = BuildRecord(
        wheel=path.name,
        version=version,
        sha256=digest,
        size=len(content),
        started="2026-01-01T00:00:00Z",
        created="2026-01-01T00:00:00Z",
        pipeline="0.1.0",
        request=(),
        materials=(),
        sources_locked=True,
        llama_cpp_commit="unknown",
        locks=(),
        toolchain=(),
        units=(),
        shards=(),
        steps=(),
        inspection=inspection,
        validation=validation,
    )
    return wheel, record, inspection, validation


class Links(HTMLParser):
    """The links of a page, as pip sees them: file name -> digest."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            name, _, digest = (dict(attrs)["href"] or "").partition("#sha256=")
            self.found[unquote(name)] = digest
