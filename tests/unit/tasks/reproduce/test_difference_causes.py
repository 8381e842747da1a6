"""What makes texts and names differ, told from the texts and names alone."""

import pytest

from build_config.tasks.reproduce.difference import hashes, text

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
    assert said in (text.cause(first, second) or "")
    assert text.cause(first, second + "!") is None
    assert said in (text.cause(first) or "")


def test_nothing_is_suspected_in_plain_words() -> None:
    for plain in ("a/b and 1/2", "GGML_ASSERT(x) failed: %s:%d", "https://host/a", "src/llama.cpp/ggml/src/ggml.c"):
        assert text.cause(plain) is None


def details(first: bytes, second: bytes) -> list[str]:
    return [detail for _, detail in text.compare_strings(".rodata", first, second)]


def test_as_many_strings_on_both_sides_are_versions_of_one_another() -> None:
    first = b"first one\0/home/ada/x/a.c\0built Jan  2 2026\0\x01\x02behind numbers\0the same\0"
    second = b"the same\0first two\0/home/bob/x/a.c\0built Jan  3 2026\0"
    path, time, rest = details(first, second)
    assert path.startswith(".rodata has the string '/home/ada/x/a.c', in the other '/home/bob/x/a.c': that is a path")
    assert time.startswith(".rodata has the string 'built Jan  2 2026', in the other 'built Jan  3 2026': that looks")
    assert rest == ".rodata has the string 'first one', in the other 'first two'"


def test_of_other_strings_each_is_told_with_what_it_looks_like() -> None:
    plain, path = b"first one\0", b"/home/ada/x/a.c\0"
    told, rest = details(plain + path, b"")
    assert told.startswith(".rodata has the string '/home/ada/x/a.c' only here: that is a path in a user's folder")
    assert rest == ".rodata has the string 'first one' only here"
    assert details(b"", plain) == [".rodata has the string 'first one' only in the other"]


# -------------------------------------------------------------------------------------------------------------- hashes

NAME = "36_GLOBAL__N__681207f2_4_k_cu_acc5a52f1fE"
OF_A_PROCESS = "42_GLOBAL__N__5fccf7c0_4_n_cu_d110413c_174111fE"
"""The number of a process, then the length of the next name."""


@pytest.mark.parametrize(
    ("name", "module", "plain"),
    [
        (NAME, "k.cu 681207f2 acc5a52f", "<k.cu>1fE"),
        (OF_A_PROCESS, "n.cu 5fccf7c0 d110413c_17411", "<n.cu>1fE"),
        # digits of another name in front of the length
        (
            "std3__443_GLOBAL__N__0333ac59_10_softmax_cu_d2f7ab9c1fE",
            "softmax.cu 0333ac59 d2f7ab9c",
            "std3__<softmax.cu>1fE",
        ),
        # a file that is called like a hash
        ("44_GLOBAL__N__0333ac59_11_deadbeef_cu_d2f7ab9c1fE", "deadbeef.cu 0333ac59 d2f7ab9c", "<deadbeef.cu>1fE"),
        # a name inside of a name
        (
            f"40_INTERNAL_5fccf7c0_4_n_cu_d110413c_17411{OF_A_PROCESS}",
            "n.cu 5fccf7c0 d110413c_17411",
            "<n.cu><n.cu>1fE",
        ),
    ],
)
def test_the_parts_of_a_local_name(name: str, module: str, plain: str) -> None:
    (found,) = hashes.module_ids([name])
    assert f"{found.source} {found.path} {found.ending}" == module
    assert hashes.without_hashes(name).replace("__4<", "__<") == plain


def test_other_names_have_no_such_parts() -> None:
    assert hashes.module_ids(["_Z5plainPf", "_GLOBAL__N_1", "_INTERNAL_", "9" * 9999 + "_GLOBAL__N_", ""]) == ()


@pytest.mark.parametrize(
    ("after", "kinds", "said"),
    [
        ("36_GLOBAL__N__00000000_4_k_cu_acc5a52f1fE", ["source-path"], "canonical path"),
        ("36_GLOBAL__N__681207f2_4_k_cu_000000001fE", ["random-seed"], "another --frandom-seed"),
        ("40_GLOBAL__N__681207f2_4_k_cu_acc5a52f_1231fE", ["random-seed"], "no --frandom-seed"),
        ("36_GLOBAL__N__00000000_4_j_cu_acc5a52f1fE", [], ""),
        (NAME, [], ""),
    ],
)
def test_what_a_changed_hash_means(after: str, kinds: list[str], said: str) -> None:
    found = [*hashes.compare("here", [NAME], [after])]
    assert [kind for kind, _ in found] == kinds
    assert all(said in detail and "k.cu" in detail for _, detail in found)
