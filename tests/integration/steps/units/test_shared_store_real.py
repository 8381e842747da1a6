"""A shared store of units in a folder, on a web server and in S3: what is taken of it, and what is not."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import threading
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from build_config.errors import TransferError
from build_config.model import BuildUnit, SystemHeaders
from build_config.steps.units import settings, shared_store, store
from build_config.steps.units.spec import UnitSpec, shard_spec
from build_config.steps.wheelhouse import signature
from build_config.system import jsonio, network, storage
from build_config.system.console import Console
from build_config.system.layout import PACKAGE
from tests.support import bucket, factories

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from build_config.system.layout import Layout

pytestmark = pytest.mark.integration

CONFIG = settings.read(PACKAGE / "data" / "variants.toml")
LIBRARY = "libggml-cuda-sm89.so"
CODE = b"code" * 100_000
KIND = shared_store.DESCRIPTION_TYPE
OURS, FOREIGN = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
HEADERS = SystemHeaders(number=1, sha256="e" * 64, unexpected=())


def key_id(key: Ed25519PrivateKey) -> str:
    return signature.key_id(key.public_key())


def spec(project: str = "p") -> UnitSpec:
    """The unit that is wanted; another project gives another key."""
    return shard_spec(
        CONFIG, factories.source_tree(), factories.layout(PACKAGE), factories.toolchain(), project, factories.SM89
    )


@dataclass(frozen=True)
class Shared:
    """A shared store: where it is written, and where it is read."""

    written: storage.Bucket
    read: storage.Reader

    @property
    def description(self) -> str:
        return shared_store.description_name(spec().key.digest)

    @property
    def blob(self) -> str:
        return shared_store.blob_name(hashlib.sha256(CODE).hexdigest())

    def change(self, name: str, content: bytes) -> None:
        """Replace a file, as somebody who may write there, but does not have the key."""
        assert self.written.read(name) is not None
        self.written.write(name, content, {})

    def push(self, *units: BuildUnit, key: Ed25519PrivateKey = OURS) -> None:
        sealed = functools.partial(signature.seal, payload_type=KIND, key=key)
        anybody = functools.partial(signature.payload_of_anybody, payload_type=KIND)
        shared_store.push_units(units, self.written, sealed, anybody, Console())

    def take(
        self,
        layout: Layout,
        *,
        wanted: UnitSpec | None = None,
        required: bool = False,
        revoked: tuple[tuple[str, str], ...] = (),
    ) -> BuildUnit | None:
        trusted = (Ed25519PrivateKey.generate().public_key(), OURS.public_key())
        keys = signature.Keys(trusted=trusted, revoked=revoked)
        opened = functools.partial(signature.trusted_payload, payload_type=KIND, keys=keys)
        chosen = wanted or spec()
        shared_store.discard((chosen,), dict(revoked), layout, Console())
        shared_store.import_units((chosen,), self.read, opened, layout, Console(), required=required)
        return store.find(chosen, layout)


def built(layout: Layout, content: bytes = CODE, wanted: UnitSpec | None = None) -> BuildUnit:
    folder = layout.work_root / "built"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LIBRARY).write_bytes(content)
    return store.keep(wanted or spec(), folder, layout, network="none", headers=HEADERS, launcher="ccache")


class Quiet(SimpleHTTPRequestHandler):
    """A web server that can lose connections: ``cut`` are the numbers of bytes of the next answers."""

    cut: list[int]

    def log_message(self, *_: object) -> None:
        pass

    def copyfile(self, source: Any, outputfile: Any) -> None:
        if self.cut:
            outputfile.write(source.read(self.cut.pop(0)))
        else:
            super().copyfile(source, outputfile)


@contextlib.contextmanager
def website(folder: Path) -> Iterator[tuple[str, list[int]]]:
    cut: list[int] = []
    handler = type("Handler", (Quiet,), {"cut": cut})
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", cut
        server.shutdown()
        thread.join()


@pytest.fixture(name="server", scope="module")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bucket.Server]:
    with bucket.serve(tmp_path_factory.mktemp("storage")) as server:
        yield server


@pytest.fixture(name="shared", params=["folder", "http", "s3"])
def _shared(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shared]:
    monkeypatch.setattr(network, "PAUSE", 0.01)
    if request.param == "s3":
        server = request.getfixturevalue("server")
        for name, value in server.variables.items():
            monkeypatch.setenv(name, value)
        place = server.place()
        yield Shared(storage.writer(place), storage.reader(place))
        return
    folder = tmp_path / "shared"
    folder.mkdir()
    if request.param == "folder":
        yield Shared(storage.writer(folder), storage.reader(folder))
        return
    with website(folder) as (url, _):
        yield Shared(storage.writer(folder), storage.reader(url))


@pytest.fixture(name="there")
def _there(tmp_path: Path, shared: Shared) -> Layout:
    """The machine that compiled the unit and has pushed it."""
    layout = factories.layout(tmp_path / "there")
    shared.push(built(layout))
    return layout


@pytest.fixture(name="here")
def _here(tmp_path: Path) -> Layout:
    return factories.layout(tmp_path / "here")


def assert_refused(shared: Shared, here: Layout, *said: str) -> None:
    """It is an error, whether a unit is required or not, and nothing is kept."""
    for required in (False, True):
        with pytest.raises(TransferError) as caught:
            shared.take(here, required=required)
        assert all(text in caught.value.message for text in said), caught.value.message
        assert caught.value.remedy
    assert not list(here.work_root.rglob("*.so"))


def assert_missed(shared: Shared, here: Layout, capsys: pytest.CaptureFixture[str], *said: str) -> None:
    """It is said and compiled here; if a unit is required, it is an error."""
    capsys.readouterr()
    assert shared.take(here) is None
    output = " ".join("".join(capsys.readouterr()).split())
    assert all(text in output for text in (*said, "it is compiled here")), output
    with pytest.raises(TransferError):
        shared.take(here, required=True)
    assert not list(here.work_root.rglob("*.so"))


def test_a_unit_arrives_as_it_was_built(shared: Shared, there: Layout, here: Layout) -> None:
    unit = shared.take(here, required=True)
    assert unit is not None
    assert (unit.folder / LIBRARY).read_bytes() == CODE
    assert (unit.network, unit.headers, unit.launcher) == ("none", HEADERS, "ccache")
    assert unit.origin == f"the shared store {shared.read.url}, signed by the key {key_id(OURS)}"
    assert shared.written.names("") == sorted([shared.description, shared.blob])
    assert [path.name for path in here.store.iterdir()] == ["sm89"]
    assert store.find(spec(), there) is not None


@pytest.mark.usefixtures("there")
def test_what_was_not_pushed_is_compiled(shared: Shared, here: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    other = spec("another project")
    assert shared.take(here, wanted=other) is None
    assert "does not have it" in " ".join("".join(capsys.readouterr()).split())


@pytest.mark.usefixtures("there")
def test_an_unsigned_unit_is_not_used(shared: Shared, here: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    envelope = json.loads(shared.written.read(shared.description) or b"")
    for text, said in (
        (json.dumps(envelope), "not written as this project writes"),
        ("{}", "is not a DSSE envelope"),
        (jsonio.dumps({**envelope, "signatures": []}), "it names nobody"),
    ):
        shared.change(shared.description, text.encode())
        assert_missed(shared, here, capsys, said)


@pytest.mark.usefixtures("there")
def test_a_unit_of_a_foreign_key_is_not_used(shared: Shared, here: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    text = (shared.written.read(shared.description) or b"").decode()
    payload = signature.unverified_payload(text, KIND)
    shared.change(shared.description, signature.seal(payload, KIND, FOREIGN).encode())
    assert_missed(shared, here, capsys, "0 of 1 valid signatures", f"it names {key_id(FOREIGN)}")


@pytest.mark.usefixtures("there")
def test_a_unit_of_a_revoked_key_is_not_used_nor_is_one_that_was_taken_before(
    shared: Shared, here: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    def missed(layout: Layout) -> str:
        capsys.readouterr()
        assert shared.take(layout, revoked=((key_id(OURS), "stolen on a train"),)) is None
        return " ".join("".join(capsys.readouterr()).split())

    assert f"the key {key_id(OURS)} was revoked: stolen on a train" in missed(here)
    assert shared.take(here) is not None
    assert shared.take(here, revoked=((key_id(FOREIGN), "stolen on a train"),)) is not None
    assert "is removed from the store of this machine" in missed(here)
    assert not list(here.work_root.rglob("*.so"))


def test_a_unit_that_was_compiled_here_stays_whichever_key_is_revoked(shared: Shared, there: Layout) -> None:
    assert shared.take(there, revoked=((key_id(OURS), "stolen"),)) is not None


@pytest.mark.usefixtures("there")
def test_a_signature_of_something_else_is_an_error(shared: Shared, here: Layout) -> None:
    """The attacker names our key, but cannot sign with it."""
    text = (shared.written.read(shared.description) or b"").decode()
    payload = signature.unverified_payload(text, KIND).replace(b'"network": "none"', b'"network": "all"')
    forged = json.loads(signature.seal(payload, KIND, FOREIGN))
    forged["signatures"] = json.loads(text)["signatures"]
    shared.change(shared.description, jsonio.dumps(forged).encode())
    assert_refused(shared, here, key_id(OURS), "not valid")


@pytest.mark.parametrize(
    "content", [b"c0de" * 100_000, CODE[:-1], b"", CODE + b"more" * 1_000_000], ids=["digest", "cut", "empty", "longer"]
)
@pytest.mark.usefixtures("there")
def test_a_replaced_or_truncated_file_is_an_error(shared: Shared, here: Layout, content: bytes) -> None:
    shared.change(shared.blob, content)
    assert_refused(shared, here, hashlib.sha256(CODE).hexdigest(), "Nothing of it was used")


@pytest.mark.usefixtures("there")
def test_the_unit_of_another_key_is_an_error(shared: Shared, here: Layout) -> None:
    """All is signed, but it is not what was asked for: an older unit, say, with a fault that is known."""
    other = spec("an older project")
    layout = factories.layout(here.work_root.parent / "older")
    shared.push(built(layout, b"older", other))
    signed = shared.written.read(shared_store.description_name(other.key.digest))
    shared.change(shared.description, signed or b"")
    assert_refused(shared, here, other.key.digest)


@pytest.mark.usefixtures("there")
def test_a_truncated_description_is_not_used(shared: Shared, here: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    shared.change(shared.description, (shared.written.read(shared.description) or b"")[:-50])
    assert_missed(shared, here, capsys, "is not a DSSE envelope")


@pytest.mark.usefixtures("there")
def test_a_store_without_the_file_is_said(shared: Shared, here: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    shared.written.remove([shared.blob])
    assert_missed(shared, here, capsys, shared.blob, "is missing")


def test_a_store_that_is_gone_half_way(tmp_path: Path, here: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "PAUSE", 0.01)
    folder = tmp_path / "shared"
    with website(folder) as (url, cut):
        shared = Shared(storage.writer(folder), storage.reader(url))
        shared.push(built(factories.layout(tmp_path / "there")))
        size = len(shared.written.read(shared.description) or b"")
        cut[:] = [size, 1000]
        unit = shared.take(here, required=True)
        assert unit is not None, "the file was asked for again"
        elsewhere = factories.layout(tmp_path / "elsewhere")
        cut[:] = [size, *[1000] * network.ATTEMPTS]
        assert shared.take(elsewhere) is None
        assert not list(elsewhere.work_root.rglob("*.so"))
    with pytest.raises(TransferError, match="cannot read"):
        shared.take(elsewhere, required=True)


def test_the_first_writer_stays(
    shared: Shared, there: Layout, here: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {name: shared.written.read(name) for name in shared.written.names("")}
    same = factories.layout(tmp_path / "same")
    capsys.readouterr()
    shared.push(built(same), key=FOREIGN)
    assert "with the same bytes" in " ".join("".join(capsys.readouterr()).split())
    with pytest.raises(TransferError) as caught:
        shared.push(built(same, b"other code"), key=FOREIGN)
    assert hashlib.sha256(CODE).hexdigest() in caught.value.message
    assert hashlib.sha256(b"other code").hexdigest() in caught.value.message
    assert {name: shared.written.read(name) for name in shared.written.names("")} == before
    assert shared.take(here, required=True) is not None
    assert store.find(spec(), there) is not None


def test_a_file_in_the_place_of_another_is_found_by_the_next_writer(shared: Shared, tmp_path: Path) -> None:
    shared.written.write(shared.blob, b"something else", {})
    with pytest.raises(TransferError, match=hashlib.sha256(b"something else").hexdigest()):
        shared.push(built(factories.layout(tmp_path / "there")))
    assert shared.written.names("") == [shared.blob], "and nobody signs it"


def test_what_came_from_elsewhere_is_not_signed(
    shared: Shared, there: Layout, here: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unit = shared.take(here)
    assert unit is not None
    empty = Shared(storage.writer(tmp_path / "empty"), shared.read)
    empty.push(unit)
    assert not empty.written.names("")
    assert "not pushed, it came from the shared store" in " ".join("".join(capsys.readouterr()).split())
    assert store.find(spec(), there) is not None
