from pathlib import Path

import pytest

from build_config.system import git

COMMIT = "1f0c2d3e" * 5
OTHER = "e" * 40


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n", encoding="utf-8")


@pytest.mark.parametrize("commit", [COMMIT, "a" * 64])
def test_a_commit_without_a_branch(tmp_path: Path, commit: str) -> None:
    write(tmp_path / ".git/HEAD", commit)
    assert git.commit(tmp_path) == commit


def test_a_branch_in_the_list_and_then_in_a_file_of_its_own(tmp_path: Path) -> None:
    write(tmp_path / ".git/HEAD", "ref: refs/heads/main")
    assert git.commit(tmp_path) == git.UNKNOWN
    listed = ("# pack-refs with: peeled", f"{OTHER} refs/remotes/origin/refs/heads/main", f"{COMMIT} refs/heads/main")
    write(tmp_path / ".git/packed-refs", "\n".join((*listed, f"^{OTHER}", f"{OTHER} refs/heads/main2")))
    assert git.commit(tmp_path) == COMMIT
    write(tmp_path / ".git/refs/heads/main", OTHER)
    assert git.commit(tmp_path) == OTHER


def test_a_branch_that_stands_for_another(tmp_path: Path) -> None:
    write(tmp_path / ".git/HEAD", "ref: refs/heads/alias")
    write(tmp_path / ".git/refs/heads/alias", "ref: refs/heads/main")
    write(tmp_path / ".git/refs/heads/main", COMMIT)
    assert git.commit(tmp_path) == COMMIT


def test_a_worktree_has_a_head_of_its_own_and_the_branches_of_the_main_checkout(tmp_path: Path) -> None:
    main, worktree = tmp_path / "main/.git", tmp_path / "topic"
    write(main / "HEAD", OTHER)
    write(main / "worktrees/topic/HEAD", "ref: refs/heads/topic")
    write(main / "worktrees/topic/commondir", "../..")
    write(worktree / ".git", f"gitdir: {main / 'worktrees/topic'}")
    write(main / "packed-refs", f"{COMMIT} refs/heads/topic")
    assert git.commit(worktree) == COMMIT
    write(main / "refs/heads/topic", "f" * 40)
    assert git.commit(worktree) == "f" * 40


def test_a_submodule_points_to_its_folder_from_where_it_is(tmp_path: Path) -> None:
    write(tmp_path / "vendor/part/.git", "gitdir: ../../.git/modules/part")
    write(tmp_path / ".git/modules/part/HEAD", COMMIT)
    assert git.commit(tmp_path / "vendor/part") == COMMIT


@pytest.mark.parametrize("head", ["ref: refs/heads/unborn", "ref: refs/heads/circle", "no commit", ""])
def test_what_cannot_be_read_is_unknown(tmp_path: Path, head: str) -> None:
    assert git.commit(tmp_path) == git.UNKNOWN
    write(tmp_path / ".git/HEAD", head)
    write(tmp_path / ".git/refs/heads/circle", "ref: refs/heads/circle")
    assert git.commit(tmp_path) == git.UNKNOWN
    (tmp_path / ".git/HEAD").write_bytes(b"\xff")
    assert git.commit(tmp_path) == git.UNKNOWN


def test_what_is_called_a_commit() -> None:
    assert git.is_commit(COMMIT)
    assert not any(map(git.is_commit, (git.UNKNOWN, COMMIT[:-1], COMMIT.upper(), "")))
