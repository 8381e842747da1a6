import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from build_config.errors import BuildError
from build_config.model import Toolchain
from build_config.steps.units import cmake, settings, store
from build_config.steps.units.spec import UnitSpec, core_spec, shard_spec
from build_config.system.layout import PACKAGE
from tests.support import factories

CONFIG = settings.read(PACKAGE / "data" / "variants.toml")
CHAIN = factories.toolchain()
LAYOUT = factories.layout(Path("/work-root"))


def shard_digest(*, tree_digest: str = "a" * 64, project: str = "p", chain: Toolchain = CHAIN) -> str:
    tree = factories.source_tree(digest=tree_digest)
    return shard_spec(CONFIG, tree, LAYOUT, chain, project, factories.SM89).key.digest


def test_the_same_inputs_give_the_same_key_and_each_input_counts() -> None:
    base = shard_digest()
    other_host = dataclasses.replace(CHAIN.host, identity="h" * 64)
    other_cuda = dataclasses.replace(CHAIN.cuda, identity="d" * 64)
    assert shard_digest() == base
    changed = [
        shard_digest(tree_digest="f" * 64),
        shard_digest(project="q"),
        shard_digest(chain=dataclasses.replace(CHAIN, host=other_host)),
        shard_digest(chain=dataclasses.replace(CHAIN, host=dataclasses.replace(CHAIN.host, binutils="GNU ld 2.41"))),
        shard_digest(chain=dataclasses.replace(CHAIN, cuda=other_cuda)),
        shard_digest(chain=dataclasses.replace(CHAIN, cmake=factories.program("/venv/bin/cmake", "4.5.0"))),
    ]
    assert len({base, *changed}) == 1 + len(changed)


def test_a_launcher_and_the_place_of_cmake_do_not_enter_the_key() -> None:
    launcher = factories.program("/anywhere/sccache")
    elsewhere = factories.program("/another/venv/bin/cmake", "4.4.4")
    assert shard_digest(chain=dataclasses.replace(CHAIN, launcher=launcher, cmake=elsewhere)) == shard_digest()


def test_shards_do_not_depend_on_one_another_nor_the_core_on_cuda() -> None:
    tree = factories.source_tree()
    shards = [shard_spec(CONFIG, tree, LAYOUT, CHAIN, "p", shard).key for shard in (factories.SM86, factories.SM89)]
    assert shards[0] != shards[1]
    other_cuda = dataclasses.replace(CHAIN, cuda=dataclasses.replace(CHAIN.cuda, identity="d" * 64))
    assert core_spec(CONFIG, tree, LAYOUT, CHAIN, "p").key == core_spec(CONFIG, tree, LAYOUT, other_cuda, "p").key


def test_a_core_by_an_older_gcc_expects_its_variants_and_depends_on_the_file_that_helps_it() -> None:
    host = dataclasses.replace(CHAIN.host, cxx=factories.program("/usr/bin/g++", "10.2.1"))
    chain, tree = dataclasses.replace(CHAIN, host=host), factories.source_tree()
    old, new = (core_spec(CONFIG, tree, LAYOUT, each, "p") for each in (chain, CHAIN))
    assert set(new.expected) - set(old.expected) == {"libggml-cpu-alderlake.so", "libggml-cpu-sapphirerapids.so"}
    assert dict(old.key.inputs).keys() - dict(new.key.inputs) == {"older_gcc.cmake", f"-D{cmake.INCLUDE}"}


@pytest.fixture
def built(tmp_path: Path) -> Path:
    folder = tmp_path / "unit"
    folder.mkdir()
    (folder / "libggml-cuda-sm89.so").write_bytes(b"code")
    return folder


def spec() -> UnitSpec:
    return shard_spec(CONFIG, factories.source_tree(), LAYOUT, CHAIN, "p", factories.SM89)


def test_what_was_kept_is_found_again(tmp_path: Path, built: Path) -> None:
    layout = factories.layout(tmp_path)
    assert store.find(spec(), layout) is None
    kept = store.keep(spec(), built, layout, network="none")
    found = store.find(spec(), layout)
    assert found is not None
    assert found.files == kept.files
    assert (found.folder / "libggml-cuda-sm89.so").read_bytes() == b"code"


@pytest.mark.parametrize("damage", [lambda file: file.write_bytes(b"c0de"), Path.unlink], ids=["changed", "missing"])
def test_a_unit_with_a_changed_byte_or_a_half_written_one_is_not_taken(
    tmp_path: Path, built: Path, damage: Callable[[Path], object]
) -> None:
    layout = factories.layout(tmp_path)
    damage(store.keep(spec(), built, layout, network="none").folder / "libggml-cuda-sm89.so")
    assert store.find(spec(), layout) is None


def test_a_build_that_lacks_a_library_is_not_kept(tmp_path: Path, built: Path) -> None:
    (built / "libggml-cuda-sm89.so").unlink()
    with pytest.raises(BuildError, match=r"libggml-cuda-sm89\.so"):
        store.keep(spec(), built, factories.layout(tmp_path), network="none")


def test_a_folders_digest_follows_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = store.folder_digest(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    renamed = store.folder_digest(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, renamed, store.folder_digest(tmp_path)}) == 3
