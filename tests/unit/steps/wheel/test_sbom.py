"""The SBOM inside the wheel: valid, the same for the same inputs, and found out when it is not about its wheel."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from build_config.errors import PackagingError, SettingsError
from build_config.formats import build_facts, cyclonedx, wheelfile
from build_config.model import PlatformName, SourceTree
from build_config.steps import locks
from build_config.steps.inspection import sbom as bom
from build_config.steps.inspection.contents import NotRunError
from build_config.steps.wheel import assemble, sbom
from build_config.steps.wheel.sbom import document as sbom_document
from build_config.steps.wheel.sbom import ingredients
from build_config.system import layout
from tests.support import factories, wheels

LAYOUT = factories.layout(Path("/nowhere"))
SBOM = f"{wheels.DIST_INFO}/{cyclonedx.MEMBER}"
GOMP = "llama_cpp_python.libs/libgomp-0123abcd.so.1.0.0"
AUDITWHEEL = {"components": [{"name": "libgomp1", "version": "12.2.0-14", "purl": "pkg:deb/debian/libgomp1@12.2.0-14"}]}
COMMIT = "0c1e5709" * 5


def sources(root: Path, components: ingredients.Components) -> SourceTree:
    """A tree in which every file that components.toml names exists and says what its pattern looks for."""
    tree = dataclasses.replace(factories.source_tree(root), commit=COMMIT)
    texts: dict[str, str] = {}
    for source in components.sources:
        for name in source.files:
            texts.setdefault(name, "")
        for place in (source.version, source.revision):
            if place is not None:
                texts[place.file] = texts.get(place.file, "") + example(place.pattern)
    for name, text in texts.items():
        path = tree.llama_cpp / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tree


def example(pattern: str) -> str:
    """Lines that a pattern of components.toml matches: one for each alternative of its names."""
    lines = []
    choices = re.search(r"\(\?:([A-Z|]+)\)", pattern)
    for number, choice in enumerate(choices[1].split("|") if choices else [""]):
        line = re.sub(r"\(\?:[A-Z|]+\)", choice, pattern).removeprefix("^")
        line = line.replace(r"(\d+)", str(number + 1)).replace("([0-9.]+)", "2.30").replace("([0-9a-f]{40})", "a" * 40)
        lines.append(line.replace(" *=", " =").replace(" +", " ").replace("\\", "") + "\n")
    return "".join(lines)


def collect(
    tree: SourceTree, components: ingredients.Components | None = None, *, locked: bool = True
) -> ingredients.Ingredients:
    return ingredients.collect(
        components or ingredients.read_components(LAYOUT),
        version=wheels.VERSION,
        shards=(factories.SM89,),
        tree=tree,
        source=locks.read_source_lock(LAYOUT),
        toolchain=factories.toolchain(),
        toolkit=locks.read_toolkit_lock(LAYOUT, "13.0", "linux-x86_64") if locked else None,
        wheel_project=LAYOUT.wheel_project,
    )


@pytest.fixture(name="tree")
def _tree(tmp_path: Path) -> SourceTree:
    return sources(tmp_path / "staged", ingredients.read_components(LAYOUT))


@pytest.fixture(name="members")
def _members() -> dict[str, bytes]:
    libraries = {name: name.encode() for name in ("libggml.so", "libmtmd.so", "libggml-cuda-sm89.so")}
    return {
        **wheels.contents(libraries),
        GOMP: b"gomp",
        "llama_cpp/_cuda_loader.py": b"loader",
        f"{wheels.DIST_INFO}/{sbom_document.AUDITWHEEL}": json.dumps(AUDITWHEEL).encode(),
    }


def describe(tree: SourceTree, members: dict[str, bytes]) -> str:
    return sbom_document.describe(collect(tree), members, wheels.wheel_name())


@pytest.fixture(name="document")
def _document(tree: SourceTree, members: dict[str, bytes]) -> dict[str, Any]:
    described: dict[str, Any] = json.loads(describe(tree, members))
    return described


def by_name(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The components; a distribution that is only required does not hide the one of which parts are contained."""
    ordered = sorted(document["components"], key=lambda each: not each["bom-ref"].startswith("required:"))
    return {each["name"]: each for each in ordered}


# ---------------------------------------------------------------------------------------------------------- document


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"specVersion": "1.6"', '"specVersion": "9.9"'),
        lambda text: text.replace('"scope": "excluded"', '"scope": "somewhere"'),
        lambda text: text.replace('"bomFormat"', '"bomShape"'),
        lambda text: text.replace("urn:uuid:", "urn:number:"),
        lambda text: text[:-3],
    ],
)
def test_the_document_is_valid_and_what_breaks_the_schema_is_found(
    tree: SourceTree, members: dict[str, bytes], change: Callable[[str], str]
) -> None:
    text = describe(tree, members)
    assert cyclonedx.problems(text) == ()
    assert change(text) != text
    assert cyclonedx.problems(change(text))


def test_the_same_inputs_give_the_same_text_in_any_order(tree: SourceTree, members: dict[str, bytes]) -> None:
    known = collect(tree)
    text = describe(tree, members)
    turned = dataclasses.replace(known, parts=known.parts[::-1])
    assert sbom_document.describe(turned, dict(reversed(members.items())), wheels.wheel_name()) == text
    assert json.loads(describe(tree, {**members, GOMP: b"another"}))["serialNumber"] != json.loads(text)["serialNumber"]


def test_no_path_and_no_time_gets_in(document: dict[str, Any], tmp_path: Path) -> None:
    text = json.dumps(document)
    assert str(tmp_path) not in text
    assert "timestamp" not in text
    assert not re.search(r'"/|[ =]/', text)


def test_every_component_has_a_licence_and_all_but_ours_a_version(document: dict[str, Any]) -> None:
    for component in document["components"]:
        if component["type"] != "file" and not component["bom-ref"].startswith("required:"):
            assert component["licenses"], component["name"]
            if component["name"] not in {"llama-cuda-wheels", "llamafile-sgemm"}:
                assert component["version"], component["name"]


def test_versions_and_commits_come_from_the_sources(document: dict[str, Any]) -> None:
    found = by_name(document)
    assert found["llama.cpp"]["purl"] == f"pkg:github/ggml-org/llama.cpp@{COMMIT}"
    assert found["ggml"]["version"] == "1.2.3"
    assert found["stb_image"]["version"] == "2.30"
    assert found["sha256"]["version"] == "a" * 40
    assert found["miniaudio"]["purl"].endswith(f"miniaudio@{'a' * 40}")


@pytest.mark.parametrize("platform", list(assemble.OWN_MODULES))
def test_all_that_this_project_adds_is_listed(
    platform: PlatformName, tree: SourceTree, members: dict[str, bytes]
) -> None:
    own = {f"llama_cpp/{name}" for name in (*assemble.own_modules(platform, LAYOUT), build_facts.FILE)}
    added = {**members, **{name: name.encode() for name in own}}
    described = json.loads(describe(tree, added))
    listed = {file["name"] for part in described["components"] for file in part.get("components", ())}
    assert own <= listed


def test_locked_files_have_the_digests_of_their_locks(document: dict[str, Any]) -> None:
    found = by_name(document)
    toolkit = locks.read_toolkit_lock(LAYOUT, "13.0", "linux-x86_64").files
    for file in (locks.read_source_lock(LAYOUT).file, *toolkit):
        component = found[file.name]
        assert (component["version"], component["hashes"][0]["content"]) == (file.version, file.sha256)


def test_what_is_contained_is_told_from_what_is_not(document: dict[str, Any]) -> None:
    found = by_name(document)
    for name, scope in (("nvidia-cuda-cccl", "required"), ("nvidia-cuda-nvcc", "excluded"), ("gcc", "required")):
        assert found[name]["scope"] == scope
    required = [each for each in document["components"] if each["bom-ref"] == "required:nvidia-cublas"]
    assert [each["description"] for each in required] == ["required at run time, not contained"]


def test_the_graph_leads_from_the_wheel_to_what_is_in_each_library(document: dict[str, Any]) -> None:
    names = {each["bom-ref"]: each["name"] for each in document["components"]}
    graph = {
        each["ref"].rpartition("/")[2]: {names[ref] for ref in each.get("dependsOn", [])}
        for each in document["dependencies"]
    }
    libraries = {"llama_cpp/lib/libmtmd.so", "libgomp"}
    assert libraries | {"llama-cpp-python", "nvidia-cuda-runtime", "numpy"} <= graph["wheel"]
    assert {"llama.cpp", "miniaudio", "stb_image", "xxhash", "gcc"} <= graph["libmtmd.so"]
    assert graph["libggml.so"] == {"ggml", "gcc"}
    shard = graph["libggml-cuda-sm89.so"]
    assert {"ggml", "nvidia-cuda-cccl", "nvidia-nvvm", "llama-cuda-wheels", "gcc"} <= shard
    assert "nvidia-cuda-nvcc" not in shard


def test_libgomp_has_the_package_that_auditwheel_names(members: dict[str, bytes], tree: SourceTree) -> None:
    found = by_name(json.loads(describe(tree, members)))["libgomp"]
    assert (found["version"], found["purl"]) == ("12.2.0-14", "pkg:deb/debian/libgomp1@12.2.0-14")
    assert found["licenses"] == [{"expression": "GPL-3.0-or-later WITH GCC-exception-3.1"}]
    del members[f"{wheels.DIST_INFO}/{sbom_document.AUDITWHEEL}"]  # as on a machine whose packages it does not know
    assert "version" not in by_name(json.loads(describe(tree, members)))["libgomp"]


def test_it_is_a_member_that_record_covers(tree: SourceTree, members: dict[str, bytes], tmp_path: Path) -> None:
    plain = wheels.write(tmp_path, members)
    added = sbom.add(plain, collect(tree), tmp_path / "out")
    contents = wheelfile.read_contents(added.path)
    assert wheelfile.record_problems(contents) == ()
    assert contents[SBOM].decode() == describe(tree, members)
    assert sbom.add(added, collect(tree), tmp_path / "again").sha256 == added.sha256


# ------------------------------------------------------------------------------------------------------- ingredients


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("ggml/CMakeLists.txt", "nothing", r"ggml/CMakeLists\.txt does not contain"),
        ("vendor/stb/stb_image.h", None, r"stb_image\.h"),
    ],
)
def test_a_locked_tree_without_a_version_or_a_file_is_refused(
    tree: SourceTree, file: str, text: str | None, said: str
) -> None:
    (tree.llama_cpp / file).unlink()
    if text is not None:
        (tree.llama_cpp / file).write_text(text, encoding="utf-8")
    with pytest.raises(PackagingError, match=said):
        collect(tree)


def test_a_checkout_of_the_users_may_lack_versions_and_is_called_one(tree: SourceTree) -> None:
    (tree.llama_cpp / "ggml" / "CMakeLists.txt").unlink()
    (tree.llama_cpp / "vendor" / "stb" / "stb_image.h").unlink()
    parts = {part.name: part for part in collect(dataclasses.replace(tree, locked=False, commit="unknown")).parts}
    assert parts["ggml"].version is None
    assert "stb_image" not in parts
    assert parts["llama.cpp"].purl == "pkg:github/ggml-org/llama.cpp"
    assert "NOT the locked one" in (parts["llama.cpp"].what or "")


def test_an_installed_toolkit_is_one_component_without_digests_and_what_of_it_is_free(tree: SourceTree) -> None:
    parts = {part.name: part for part in collect(tree, locked=False).parts}
    assert parts["cuda-toolkit"].sha256 is None
    assert "NOT a locked one" in str(parts["cuda-toolkit"].what)
    assert "BSD-3-Clause" in str(parts["cccl"].licence), "CUB's templates are compiled in"
    assert (parts["cccl"].version, parts["cccl"].sha256) == (None, None), "packaged apart, in a version of its own"
    assert not [name for name in parts if name.startswith("nvidia-")]


def test_a_package_of_the_toolkit_without_a_row_is_refused(tree: SourceTree) -> None:
    components = ingredients.read_components(LAYOUT)
    with pytest.raises(PackagingError, match="nvidia-cuda-nvcc"):
        collect(tree, dataclasses.replace(components, cuda=components.cuda[:1]))


def test_a_component_file_with_an_unknown_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (LAYOUT.data / ingredients.DATA).read_text(encoding="utf-8")
    monkeypatch.setattr(layout, "PACKAGE", tmp_path)
    LAYOUT.data.mkdir()
    (LAYOUT.data / ingredients.DATA).write_text(text.replace("of_tree", "off_tree"), encoding="utf-8")
    with pytest.raises(SettingsError, match=r"components\.toml cannot be used"):
        ingredients.read_components(LAYOUT)


# -------------------------------------------------------------------------------------------------------- inspection


MTMD = "llama_cpp/lib/libmtmd.so"


def found(contents: dict[str, bytes]) -> list[str]:
    subject = wheels.subject(contents=contents, libraries={MTMD: wheels.library()})
    return [finding.code for finding in bom.check_sbom(subject)]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("0.3.36+cu130.sm89", "0.3.35+cu130.sm89", "sbom-version"),
        ("sm89: 89-real", "sm86: 86-real", "sbom-shards"),
        ("bom-ref", "bom_ref", "sbom-invalid"),
        (f"member:{MTMD}", "member:llama_cpp/lib/libother.so", "sbom-library-missing"),
        (f"member:{MTMD}", "member:llama_cpp/lib/libother.so", "sbom-library-absent"),
    ],
)
def test_an_sbom_of_another_wheel_is_found(members: dict[str, bytes], old: str, new: str, expected: str) -> None:
    listed = wheels.listed(members, factories.SM89)
    changed = listed[SBOM].replace(old.encode(), new.encode())
    assert changed != listed[SBOM]
    assert expected in found({**listed, SBOM: changed})


def test_an_sbom_is_there_and_has_the_digests_of_the_files(members: dict[str, bytes]) -> None:
    listed = wheels.listed(members, factories.SM89)
    assert found(listed) == []
    assert found({**listed, MTMD: b"changed"}) == ["sbom-digest"]
    assert found(members) == ["sbom-missing"]
    with pytest.raises(NotRunError):
        found({"a.py": b""})
