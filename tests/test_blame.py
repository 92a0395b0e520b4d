"""Whose fault a failure is: the host's, or that of one repo."""

from archiver.blame import SOUND_FOR, Blame


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_host_is_to_blame_if_nothing_else_is_known() -> None:
    blame = Blame()
    assert [blame.is_on_host("src", repo) for repo in ("a", "a", "b", "", "a")] == [True] * 5


def test_one_repo_is_to_blame_while_another_one_is_sound() -> None:
    blame = Blame()
    blame.note_answer("src", "sound")
    assert not any(blame.is_on_host("src", "broken") for _ in range(20))
    assert blame.is_on_host("other", "broken")


def test_an_answer_about_the_broken_repo_itself_proves_nothing() -> None:
    blame = Blame()
    blame.note_answer("src", "half")
    assert blame.is_on_host("src", "half")
    blame.note_answer("src", "sound")
    assert not blame.is_on_host("src", "half")
    blame.note_answer("src", "half")
    assert not blame.is_on_host("src", "half")


def test_the_host_is_to_blame_once_a_second_repo_fails() -> None:
    blame = Blame()
    blame.note_answer("src", "sound")
    assert not blame.is_on_host("src", "broken")
    assert blame.is_on_host("src", "sound")
    assert blame.is_on_host("src", "broken")


def test_an_answer_is_proof_for_a_minute() -> None:
    clock = Clock()
    blame = Blame(now=clock)
    blame.note_answer("src", "sound")
    clock.now += SOUND_FOR.total_seconds() - 1
    assert not blame.is_on_host("src", "broken")
    clock.now += 1
    assert blame.is_on_host("src", "broken")
