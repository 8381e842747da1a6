"""A small published wheel with its record, its statement and, with a key, its signature."""

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from build_config import inputs
from build_config.model import PlatformName, UnitKey, Wheel
from build_config.plan import BuildRequest
from build_config.reports import BuildRecord
from build_config.steps import locks
from build_config.steps.wheelhouse import build_record, publication, statement, verification
from build_config.steps.wheelhouse.signature import Keys
from build_config.system.layout import PACKAGE, Layout
from tests.support import factories, publishable, wheels

LAYOUT = Layout(checkout=PACKAGE.parent, work_root=PACKAGE / "none")
PLATFORM: PlatformName = "linux-x86_64"
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)


@functools.cache
def _evidence() -> verification.Evidence:
    """The locks of this checkout, read once: some tests verify a wheel a thousand times."""
    return inputs.evidence(LAYOUT, keys=None)


@dataclass(frozen=True)
class House:
    """A folder with one published and signed wheel."""

    wheel: Path
    record: BuildRecord

    def verify(self, key: Ed25519PrivateKey | None = KEY, **changes: Any) -> verification.Verification:
        keys = None if key is None else Keys(trusted=(key.public_key(),))
        against = {"keys": keys, **changes}
        return verification.verify(self.wheel, dataclasses.replace(_evidence(), **against))

    def codes(self, key: Ed25519PrivateKey | None = KEY, **changes: Any) -> set[str]:
        return {finding.code for finding in self.verify(key, **changes).findings}

    def files(self) -> dict[str, Path]:
        return {
            "wheel": self.wheel,
            "record": publication.record_path(self.wheel),
            "statement": statement.statement_path(self.wheel),
            "envelope": statement.envelope_path(self.wheel),
        }


def _record(wheel: Wheel, scratch: Path) -> BuildRecord:
    _, blank, inspection, validation = publishable.make(scratch)
    locked = locks.read(LAYOUT, PLATFORM)
    return dataclasses.replace(
        blank,
        wheel=wheel.path.name,
        version=str(wheel.version),
        sha256=wheel.sha256,
        size=wheel.size,
        locks=locked.digests,
        request=inputs.parameters(BuildRequest(arch="89"), LAYOUT),
        materials=build_record.materials(
            source=locked.source.file,
            toolkit=locked.toolkit("13.0").files,
            tree=factories.source_tree(),
            toolchain=factories.toolchain(),
            tools=inputs.tools(locked.pins),
        ),
        units=(UnitKey(digest="c" * 64, inputs=(("flag", "x"),)), UnitKey(digest="d" * 64, inputs=())),
        shards=(factories.SM89,),
        inspection=dataclasses.replace(inspection, wheel_sha256=wheel.sha256),
        validation=dataclasses.replace(validation, wheel_sha256=wheel.sha256),
    )


def publish(folder: Path, key: Ed25519PrivateKey | None = KEY) -> House:
    (folder / "store").mkdir(parents=True)
    wheel = wheels.write(folder / "store", wheels.contents({"libllama.so": b"code" * 100}))
    record = _record(wheel, folder / "scratch")
    published = publication.publish(wheel, record, record.inspection, record.validation, folder / "wheelhouse", key=key)
    return House(wheel=published, record=record)
