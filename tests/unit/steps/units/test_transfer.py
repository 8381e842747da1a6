import json
from pathlib import Path

import pytest

from build_config.errors import TransferError
from build_config.model import SystemHeaders
from build_config.steps.units import settings, store, transfer
from build_config.steps.units.spec import UnitSpec, shard_spec
from build_config.system.console import Console
from build_config.system.layout import PACKAGE, Layout
from tests.support import factories

CONFIG = settings.read(PACKAGE / "data" / "variants.toml")
LIBRARY = "libggml-cuda-sm89.so"


def spec(project: str = "p") -> UnitSpec:
    layout = factories.layout(Path("/work-root"))
    return shard_spec(CONFIG, factories.source_tree(), layout, factories.toolchain(), project, factories.SM89)


HEADERS = SystemHeaders(number=1, sha256="e" * 64, unexpected=(Path("/usr/include/other.h"),))


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A folder with one unit, as another machine gave it."""
    built = tmp_path / "unit"
    built.mkdir()
    (built / LIBRARY).write_bytes(b"code")
    layout = factories.layout(tmp_path / "there")
    unit = store.keep(spec(), built, layout, network="none", headers=HEADERS, launcher="ccache")
    transfer.export_units((unit,), tmp_path / "units")
    return tmp_path / "units"


@pytest.fixture
def here(tmp_path: Path) -> Layout:
    return factories.layout(tmp_path / "here")


def take(folder: Path | None, layout: Layout, wanted: UnitSpec | None = None, *, required: bool = True) -> None:
    transfer.import_units((wanted or spec(),), folder, layout, Console(), required=required)


def test_a_unit_arrives_as_it_was_built(given: Path, here: Layout) -> None:
    (given / "sm89" / "lib" / "stowaway.so").write_bytes(b"not of this unit")
    (given / "sm75").mkdir()
    take(given, here)
    found = store.find(spec(), here)
    assert found is not None
    assert (found.network, found.headers, found.launcher) == ("none", HEADERS, "ccache")
    assert [path.name for path in found.folder.iterdir()] == [LIBRARY]
    assert (found.folder / LIBRARY).read_bytes() == b"code"
    assert [path.name for path in here.store.iterdir()] == ["sm89"]


def test_a_unit_of_an_earlier_version_is_imported_and_found_in_the_store(given: Path, here: Layout) -> None:
    def as_before(description: Path) -> None:
        text = description.read_text(encoding="utf-8").replace('"unexpected"', '"strangers"')
        description.write_text(text, encoding="utf-8")
        assert "strangers" in text

    as_before(given / "sm89" / "unit.json")
    take(given, here)
    (description,) = here.store.rglob("unit.json")
    as_before(description)
    found = store.find(spec(), here)
    assert found is not None
    assert found.headers == HEADERS


def test_what_the_store_has_is_not_asked_for(given: Path, here: Layout) -> None:
    take(given, here)
    (given / "sm89" / "unit.json").write_text("broken", encoding="utf-8")
    take(given, here)
    take(None, here)


def test_a_unit_given_again_takes_the_place_of_the_first(given: Path, here: Layout) -> None:
    take(given, here)
    unit = store.find(spec(), here)
    assert unit is not None
    (given / "sm89" / "lib" / "old.so").write_bytes(b"of an earlier build")
    transfer.export_units((unit,), given)
    assert [path.name for path in (given / "sm89" / "lib").iterdir()] == [LIBRARY]
    assert [path.name for path in given.iterdir()] == ["sm89"]


@pytest.mark.parametrize("change", ["byte", "link", "missing", "declared", "name", "json", "no description"])
def test_a_damaged_unit_is_refused_and_nothing_of_it_kept(given: Path, here: Layout, change: str) -> None:
    library, description = given / "sm89" / "lib" / LIBRARY, given / "sm89" / "unit.json"
    data = json.loads(description.read_text(encoding="utf-8"))
    match change:
        case "byte":
            library.write_bytes(b"c0de")
        case "link":
            library.rename(given / "code")
            library.symlink_to(given / "code")
        case "missing":
            library.unlink()
        case "declared":
            library.write_bytes(b"evil")  # of the same size, and the old digest
        case "name":
            data["files"][0]["name"] = "../../../escaped.so"
            description.write_text(json.dumps(data), encoding="utf-8")
        case "json":
            description.write_text("{}", encoding="utf-8")
        case _:
            description.unlink()
    for required in (True, False):
        with pytest.raises(TransferError) as caught:
            take(given, here, required=required)
        assert caught.value.remedy
    assert store.find(spec(), here) is None
    assert not list(here.work_root.rglob("*.so"))


def test_a_unit_of_other_inputs_is_left_and_the_inputs_that_differ_are_named(
    given: Path, here: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = spec("another project")
    take(given, here, wanted, required=False)
    assert "wheel project is another project here, p there" in capsys.readouterr().out
    with pytest.raises(TransferError) as caught:
        take(given, here, wanted)
    assert wanted.key.digest[:12] in caught.value.message
    assert spec().key.digest[:12] in caught.value.message
    assert "wheel project" in caught.value.message
    assert "glibc" not in caught.value.message
    assert store.find(wanted, here) is None


def test_what_is_nowhere_is_compiled_unless_that_is_ruled_out(tmp_path: Path, here: Layout) -> None:
    take(tmp_path / "empty", here, required=False)
    with pytest.raises(TransferError, match="there is no folder"):
        take(tmp_path / "empty", here)
    with pytest.raises(TransferError, match="no folder with units was named"):
        take(None, here)


def test_a_file_that_changes_on_its_way_is_not_given_on(given: Path, here: Layout, tmp_path: Path) -> None:
    take(given, here)
    unit = store.find(spec(), here)
    assert unit is not None
    (unit.folder / LIBRARY).write_bytes(b"c0de")
    with pytest.raises(TransferError, match="changed"):
        transfer.export_units((unit,), tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere" / "sm89").exists()
