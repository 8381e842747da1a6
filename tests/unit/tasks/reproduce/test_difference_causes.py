"""What makes texts and names differ, told from the texts and names alone."""

from __future__ import annotations

import pytest

from build_config.tasks.reproduce.difference import DifferenceKind, causes, hashes, text

pytestmark = pytest.mark.unit


# -------------------------------------------------------------------------------------------------------------- causes


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("built Jan  2 2026 03:04:05", "built Feb 13 2026 13:14:15", "__DATE__"),
        ("2026-01-02T03:04:05 x", "2025-11-12T13:04:05 x", "__DATE__"),
        ("error in /home/ada/x/a.c:3", "error in /home/bob/src/a.c:3", "user's folder"),
        ("error in /opt/x/a.c:3", "error in /var/build/a.c:3", "absolute path"),
        ("tmpxft_00003b1b_00000000-6_k.cudafe1.cpp", "tmpxft_00003b3c_00000000-6_k.cudafe1.cpp", "temporary file"),
    ],
)
def test_what_makes_texts_differ_is_recognised(first: str, second: str, said: str) -> None:
    assert said in (causes.cause(first, second) or "")
    assert causes.cause(first, second + "!") is None
    assert said in (causes.suspect(first) or "")


def test_nothing_is_suspected_in_plain_words() -> None:
    for plain in ("a/b and 1/2", "GGML_ASSERT(x) failed: %s:%d", "https://host/a", "src/llama.cpp/ggml/src/ggml.c"):
        assert causes.suspect(plain) is None


def test_strings_are_paired_wherever_they_stand() -> None:
    first = b"first one\0/home/ada/x/a.c\0built Jan  2 2026\0\x01\x02behind numbers\0only here\0the same\0"
    second = b"the same\0first two\0/home/bob/x/a.c\0built Jan  3 2026\0"
    details = [each.detail for each in text.compare_strings("x.so", ".rodata", first, second)]
    assert details[0].startswith(".rodata has the string '/home/ada/x/a.c', in the other '/home/bob/x/a.c': that is a")
    assert details[1].startswith(".rodata has the string 'built Jan  2 2026', in the other 'built Jan  3 2026': that")
    assert details[2:] == [
        ".rodata has the string 'first one', in the other 'first two'",
        ".rodata has the string 'only here', the other has not",
    ]


def test_many_strings_are_counted() -> None:
    first, second = (
        b"".join(b"the string number %d of /home/%s/%d/x.c\0" % (number, name, number % 7) for number in range(5_000))
        for name in (b"ada", b"bob")
    )
    details = [each.detail for each in text.compare_strings("x.so", ".rodata", first, second)]
    assert len(details) == 6
    assert details[4].startswith(
        ".rodata has the string 'the string number 4 of /home/ada/4/x.c', in the other 'the string"
    )
    assert "number 4 of /home/bob/4/x.c" in details[4]
    assert details[-1] == ".rodata has 4995 more strings that differ"
    alone = [each.detail for each in text.compare_strings("x.so", ".rodata", first, b"")]
    assert "the other has not: that is a path in a user's folder" in alone[0]


# -------------------------------------------------------------------------------------------------------------- hashes


@pytest.mark.parametrize(
    ("name", "source", "path", "ending", "plain"),
    [
        (
            "_ZN36_GLOBAL__N__681207f2_4_k_cu_acc5a52f5scaleEPf",
            "k.cu",
            "681207f2",
            "acc5a52f",
            "_ZN<k.cu>5scaleEPf",
        ),
        (  # the number of a process, then the length of the next name
            "_ZN42_GLOBAL__N__5fccf7c0_4_n_cu_d110413c_174115scaleEPf",
            "n.cu",
            "5fccf7c0",
            "d110413c_17411",
            "_ZN<n.cu>5scaleEPf",
        ),
        (  # digits of another name in front of the length
            "_ZN4cuda3std3__443_GLOBAL__N__0333ac59_10_softmax_cu_d2f7ab9c3fooE",
            "softmax.cu",
            "0333ac59",
            "d2f7ab9c",
            "_ZN4cuda3std3__<softmax.cu>3fooE",
        ),
        (  # the file is called like a hash
            "_ZN44_GLOBAL__N__0333ac59_11_deadbeef_cu_d2f7ab9c3fooE",
            "deadbeef.cu",
            "0333ac59",
            "d2f7ab9c",
            "_ZN<deadbeef.cu>3fooE",
        ),
    ],
)
def test_the_parts_of_a_local_name(name: str, source: str, path: str, ending: str, plain: str) -> None:
    (module,) = hashes.module_ids([name])
    assert (module.source, module.path, module.ending) == (source, path, ending)
    assert hashes.without_hashes(name).replace("__4<", "__<") == plain


def test_a_name_inside_of_a_name_is_found() -> None:
    name = "_ZN40_INTERNAL_5fccf7c0_4_n_cu_d110413c_1741142_GLOBAL__N__5fccf7c0_4_n_cu_d110413c_174115tableE"
    assert [module.ending for module in hashes.module_ids([name])] == ["d110413c_17411"]
    assert hashes.without_hashes(name) == "_ZN<n.cu><n.cu>5tableE"
    assert hashes.module_ids(["_Z5plainPf", "_GLOBAL__N_1", "_INTERNAL_", ""]) == ()


@pytest.mark.parametrize(
    ("other", "kinds", "said"),
    [
        ("_ZN36_GLOBAL__N__00000000_4_k_cu_acc5a52f5scaleEPf", [DifferenceKind.SOURCE_PATH], "canonical path"),
        ("_ZN36_GLOBAL__N__681207f2_4_k_cu_000000005scaleEPf", [DifferenceKind.RANDOM_SEED], "another --frandom-seed"),
        ("_ZN40_GLOBAL__N__681207f2_4_k_cu_acc5a52f_1235scaleEPf", [DifferenceKind.RANDOM_SEED], "no --frandom-seed"),
        ("_ZN36_GLOBAL__N__681207f2_4_k_cu_acc5a52f5scaleEPf", [], ""),
        ("_ZN36_GLOBAL__N__00000000_4_j_cu_acc5a52f5scaleEPf", [], ""),
    ],
)
def test_what_a_changed_hash_means(other: str, kinds: list[DifferenceKind], said: str) -> None:
    name = "_ZN36_GLOBAL__N__681207f2_4_k_cu_acc5a52f5scaleEPf"
    found = [*hashes.compare("x.so", "here", [name], [other])]
    assert [each.kind for each in found] == kinds
    assert all(said in each.detail and "k.cu" in each.detail for each in found)
