"""Publish wheels: those of other jobs in the wheelhouse, and all in an index, if each matches its record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from build_config.errors import SettingsError, VerificationError
from build_config.formats import variants, wheelfile
from build_config.reports import BuildRecord
from build_config.steps.wheelhouse import publication, signature, statement
from build_config.steps.wheelhouse.signature import Keys
from build_config.system import jsonio, storage
from build_config.tasks.index import catalogue, rules, update
from build_config.tasks.index.catalogue import FILES
from build_config.tasks.verify import OTHER_LOCKS, verified

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.system.console import Console
    from build_config.system.layout import Layout
    from build_config.tasks.index.catalogue import Catalogue, Content
    from build_config.tasks.index.rules import Change


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishRequest:
    """The request of a user.

    Without ``folders`` the wheels of the wheelhouse are published. ``to`` is the index, a folder or storage; with it,
    wheels of ``folders`` go there and not into the wheelhouse. ``start`` is an index that an empty ``to`` begins with.
    ``keep`` is the number of versions that stay, ``delete`` removes the others instead of yanking them.
    """

    folders: tuple[Path, ...] = ()
    to: update.Place | None = None
    start: storage.Reader | None = None
    keys: Keys | None = None
    supersede: str | None = None
    reason: str | None = None
    sign_key: Path | None = None
    keep: int | None = None
    delete: bool = False


def publish(request: PublishRequest, layout: Layout, console: Console) -> tuple[Path, ...]:
    """Publish wheels with the files next to them; all, or none.

    Returns the paths in the wheelhouse, else those that are new in the index. Raises ``SettingsError`` without any
    wheel, ``VerificationError`` for one that does not belong to its record, or for two of one name, and
    ``PublishedError`` for other bytes under a published name. Then neither the wheelhouse nor the index is changed.
    """
    if (request.supersede is None) != (request.reason is None):
        raise SettingsError("--supersede NAME and --reason TEXT belong together")
    if request.delete and request.keep is None:
        raise SettingsError("--delete removes what --keep N does not keep", remedy="pass --keep N")
    supersede = None
    if request.supersede is not None and request.reason is not None:
        key = None if request.sign_key is None else signature.read_private_key(request.sign_key)
        (name,) = update.names((request.supersede,))
        supersede = rules.Supersede(name=name, reason=request.reason, key=key)
    found = _find(request.folders, layout, console, request.keys) if request.folders else ()
    index = request.to or layout.index
    published: list[Path] = []

    def change(known: Catalogue) -> Change:
        offered = tuple(map(catalogue.read, found)) or tuple(_own(known, layout, console, request.keys))
        if not offered and request.keep is None:
            raise SettingsError("the wheelhouse contains no wheel", remedy="nox -s build_cuda_wheel, or name a folder")
        made = rules.add(known, offered, supersede=supersede)
        if request.keep is not None:
            made = _limited(made, request.keep, delete=request.delete)
        into_wheelhouse = found if request.to is None else ()
        published[:] = [_published(path, layout) for path in into_wheelhouse]
        if not into_wheelhouse:  # those that are new, by the names that they have there
            files = index / FILES if isinstance(index, Path) else Path(FILES)
            published[:] = [files / one.name for one in made.files if one.name.endswith(".whl")]
        return made

    if request.start is not None:
        update.begin(index, request.start, console)
    update.change(index, console, change)
    return tuple(published)


def _limited(made: Change, keep: int, *, delete: bool) -> Change:
    limited = rules.limit(made.catalogue, keep, delete=delete)
    return rules.Change(
        catalogue=limited.catalogue,
        files=(*made.files, *limited.files),
        removed=limited.removed,
        said=(*made.said, *limited.said),
    )


def _find(folders: tuple[Path, ...], layout: Layout, console: Console, keys: Keys | None) -> tuple[Path, ...]:
    """The verified wheels in or below ``folders``, one of each name; the index of the wheelhouse is left out."""
    below = {path.absolute() for given in folders for path in given.rglob("*.whl")}
    found = sorted(path for path in below if not path.is_relative_to(layout.index))
    if not found:
        listed = ", ".join(map(str, folders))
        raise SettingsError(f"there is no wheel in {listed}", remedy="pass the folder that contains the wheels")
    digests: dict[str, str] = {}
    for path in found:
        result = verified(path, layout, console, keys)
        if digests.setdefault(path.name, result.sha256) != result.sha256:
            message = f"{path.name} was found twice, with different bytes: {digests[path.name]} and {result.sha256}"
            raise VerificationError(message, remedy="find out which build is wrong: nox -s reproduce")
    return tuple({path.name: path for path in found}.values())


def _own(known: Catalogue, layout: Layout, console: Console, keys: Keys | None) -> Iterator[Content]:
    """The wheels of the wheelhouse; those that are not published yet are verified first."""
    for content in update.own_wheels(layout, console):
        entry = known.find(content.name)
        if entry is None or entry.sha256 != content.wheel.sha256 or keys is not None:
            verified(content.wheel.path, layout, console, keys, ignored=OTHER_LOCKS)
        yield content


def _published(path: Path, layout: Layout) -> Path:
    """Publish a verified wheel in the wheelhouse, with its signature if there is one."""
    record = jsonio.read(publication.record_path(path), BuildRecord)
    envelope = statement.envelope_path(path)
    signed = envelope.read_text(encoding="utf-8") if envelope.exists() else None
    folder = layout.wheelhouse if variants.label(path.name) is None else layout.variants
    final = publication.publish(wheelfile.read_any(path), record, record.inspection, record.validation, folder)
    if signed is not None:
        jsonio.write_text(statement.envelope_path(final), signed)
    return final
