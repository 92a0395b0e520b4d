"""Resolving revs on a real git host."""

from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY

from archiver.errors import (
    InvalidRequest,
    SourceRefused,
    SourceUnavailable,
    UnknownRepo,
    UnknownRev,
)
from archiver.sources.git.ref_listing import REFS_MAX
from tests.git_repositories import (
    MAIN,
    SIMPLE,
    GitRepository,
    add_many_refs,
    commit_rounds,
    rewrite_history,
)
from tests.parts.faulty_git_host import (
    FLUSH,
    ID,
    Fault,
    FaultyGitHost,
    Question,
    broken_off,
    endless,
    faulty_git_host,
    line,
    replaced,
)
from tests.parts.git_host import GitHost
from tests.parts.thorough import thorough
from tests.sources.git_hosts import SOURCE, known, resolve

ODD_REFS = (
    "topic/with+plus&amp=1;%2F",
    "release-2.0",
    "na\N{LATIN SMALL LETTER I WITH DIAERESIS}ve/\u65e5\u672c",
    "a'b\"c$d(e)f!g,h",
    "x-1-gabcdef0",
    "0",
    "main.lock-not",
    "refs/heads/within",
)


@pytest.fixture
def repository(git_host: GitHost) -> GitRepository:
    return git_host.create()


def test_head_is_the_default_branch(git_host: GitHost, repository: GitRepository) -> None:
    main = repository.commit(SIMPLE)
    other = repository.commit({"a": b"b"}, ref="refs/heads/other")
    assert resolve(git_host.template, "HEAD") == main

    repository.git("symbolic-ref", "HEAD", "refs/heads/other")

    assert resolve(git_host.template, "HEAD") == other


def test_a_branch_and_its_full_name_are_its_newest_commit(
    git_host: GitHost, repository: GitRepository
) -> None:
    old, new = commit_rounds(repository, 2)

    assert resolve(git_host.template, "main") == new
    assert resolve(git_host.template, MAIN) == new
    repository.branch("main", old)
    assert resolve(git_host.template, "main") == old
    assert resolve(git_host.template, "main") != rewrite_history(repository, {"a": b"b"})


def test_an_annotated_tag_is_its_commit_also_through_other_tags(
    git_host: GitHost, repository: GitRepository
) -> None:
    node = repository.commit(SIMPLE)
    inner = repository.annotated_tag("v1", node)
    repository.annotated_tag("v1-signed-off", inner)
    repository.tag("light", node)

    for rev in ("v1", "v1-signed-off", "light", "refs/tags/v1-signed-off"):
        assert resolve(git_host.template, rev) == node


def test_a_tag_wins_over_a_branch_of_the_same_name_as_in_git(
    git_host: GitHost, repository: GitRepository
) -> None:
    tagged, branched = commit_rounds(repository, 2)
    repository.branch("same", branched)
    repository.annotated_tag("same", tagged)

    assert resolve(git_host.template, "same") == tagged
    assert resolve(git_host.template, "same") == repository.git("rev-parse", "same^{commit}")
    assert resolve(git_host.template, "refs/heads/same") == branched


def test_only_whole_names_match(git_host: GitHost, repository: GitRepository) -> None:
    node = repository.commit(SIMPLE)
    repository.branch("topic/one", node)
    repository.tag("v1.0", node)

    for rev in ("topic", "topic/on", "v1", "Main", "mai", "refs/heads", "refs/heads/mai", "heads"):
        with pytest.raises(UnknownRev):
            resolve(git_host.template, rev)


def test_every_name_that_git_accepts_is_resolved(
    git_host: GitHost, repository: GitRepository
) -> None:
    for number, name in enumerate(ODD_REFS):
        node = repository.commit({"a": b"%d" % number}, parents=())
        repository.branch(name, node)
        repository.tag(f"{name}-tag", node)
        assert resolve(git_host.template, name) == node
        assert resolve(git_host.template, f"{name}-tag") == node


def test_a_ref_of_another_kind_is_resolved_by_its_full_name_only(
    git_host: GitHost, repository: GitRepository
) -> None:
    node = repository.commit(SIMPLE, ref="refs/pull/7/head")

    assert resolve(git_host.template, "refs/pull/7/head") == node
    with pytest.raises(UnknownRev):
        resolve(git_host.template, "pull/7/head")


@pytest.mark.parametrize(
    "rev",
    (
        *("", "@", "@{-1}", "main@{yesterday}", "main~1", "main^", "v1^{}", "main:README", ":/fix"),
        *("a..b", "a...b", "-x", "--all", "/main", "main/", "a//b", ".a", "a/.b", "a.", "x.lock"),
        *("a.lock/b", "a b", "a*", "a?", "[a]", "a\\b", "a\nb", "a\x7fb", "refs/heads/a..b"),
    ),
)
def test_revs_that_are_no_names_of_refs_are_refused_without_a_request(
    git_host: GitHost, rev: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        resolve(git_host.template, rev)

    assert refused.value.parameter == "rev"
    assert refused.value.allowed == (
        "a branch, a tag, a full ref name, HEAD, or a commit id or its first digits"
    )
    assert git_host.requests == []


@pytest.mark.parametrize("rev", (*ODD_REFS, "main", "refs/tags/v1", "abc", "HEAD", "a@b", "a{b}"))
def test_check_agrees_with_git(repository: GitRepository, git_host: GitHost, rev: str) -> None:
    with pytest.raises(UnknownRev):
        resolve(git_host.template, rev)
    repository.git("check-ref-format", f"refs/heads/{rev}")


def test_an_empty_repository_has_no_head(git_host: GitHost) -> None:
    git_host.create()

    with pytest.raises(UnknownRev):
        resolve(git_host.template, "HEAD")


def test_an_unknown_repository_is_not_an_unknown_rev(git_host: GitHost) -> None:
    with pytest.raises(UnknownRepo, match="has no repository no/such, or it is private"):
        resolve(git_host.template, "main", "no/such")
    with pytest.raises(UnknownRepo):
        known(git_host.template, ID, "no/such")


@pytest.mark.parametrize("object_format", ("sha1", "sha256"))
def test_digits_are_the_commit_of_a_branch_or_a_tag(git_host: GitHost, object_format: str) -> None:
    repository = git_host.create(object_format=object_format)
    tagged, branched = commit_rounds(repository, 2)
    tag = repository.annotated_tag("v1", tagged)
    repository.tag("again", tagged)

    for size in (7, 12, len(tagged) - 1):
        assert resolve(git_host.template, branched[:size]) == branched
        assert resolve(git_host.template, tagged[:size].upper()) == tagged
    assert resolve(git_host.template, tagged) == tagged
    with pytest.raises(UnknownRev, match="request the commit by its full id"):
        resolve(git_host.template, tag[:12])


def test_digits_of_no_branch_or_tag_need_a_full_id(
    git_host: GitHost, repository: GitRepository
) -> None:
    hidden, _ = commit_rounds(repository, 2)

    with pytest.raises(UnknownRev, match="request the commit by its full id"):
        resolve(git_host.template, hidden[:12])
    with pytest.raises(UnknownRev, match="has no revision abc"):
        resolve(git_host.template, "abc")
    assert resolve(git_host.template, hidden) == hidden


def test_digits_of_several_commits_are_ambiguous(repository: GitRepository) -> None:
    repository.commit(SIMPLE)
    shared = [line(b"abcd%036x refs/heads/%d\n" % (number, number)) for number in range(2)]
    with faulty_git_host(repository) as host:
        host.faults[Question.LS_REFS] = replaced(b"".join(shared) + FLUSH)

        with pytest.raises(UnknownRev, match="has several revisions abcd"):
            resolve(host.template, "abcd")


def test_a_name_of_digits_is_a_name_first(git_host: GitHost, repository: GitRepository) -> None:
    first, second = commit_rounds(repository, 2)
    repository.branch(second[:8], first)

    assert resolve(git_host.template, second[:8]) == first


def test_a_bare_node_is_known_unless_the_settings_demand_a_ref(
    git_host: GitHost, repository: GitRepository
) -> None:
    old, new = commit_rounds(repository, 2)
    repository.annotated_tag("v1", new)
    stranger = repository.commit({"a": b"b"}, ref="refs/pull/1/head", parents=())

    assert known(git_host.template, ID)
    for node in (old, stranger, ID):
        assert not known(git_host.template, node, reachable=True)
    assert known(git_host.template, new, reachable=True)
    with pytest.raises(UnknownRev):
        resolve(git_host.template, old, reachable=True)


def test_a_node_of_another_object_format_is_unknown(git_host: GitHost) -> None:
    sha1 = git_host.create("one").commit(SIMPLE)
    sha256 = git_host.create("two", object_format="sha256").commit(SIMPLE)

    assert known(git_host.template, sha1, "one")
    assert not known(git_host.template, sha256, "one")
    assert known(git_host.template, sha256, "two")
    assert not known(git_host.template, sha1, "two")
    assert resolve(git_host.template, "main", "two") == sha256


def test_only_the_named_refs_of_many_are_sent(git_host: GitHost, repository: GitRepository) -> None:
    node = repository.commit(SIMPLE)
    add_many_refs(repository, node, 5000)
    branched = repository.commit({"a": b"b"}, ref="refs/heads/topic/00042")

    assert resolve(git_host.template, "topic/00042") == branched
    assert git_host.requests[-1].sent_bytes < 100
    assert resolve(git_host.template, branched[:12]) == branched
    assert git_host.requests[-1].sent_bytes > 5000 * 60
    assert known(git_host.template, branched, reachable=True)


@pytest.fixture
def faulty(repository: GitRepository) -> Iterator[FaultyGitHost]:
    commit_rounds(repository, 1)
    with faulty_git_host(repository) as host:
        yield host


def listing(number: int) -> bytes:
    return b"".join(line(b"%040x refs/heads/%07d\n" % (i, i)) for i in range(number))


def test_a_host_that_ignores_prefixes_still_resolves_exact_names(faulty: FaultyGitHost) -> None:
    faulty.faults[Question.LS_REFS] = replaced(listing(1000) + FLUSH)

    assert resolve(faulty.template, "0000042") == f"{42:040x}"
    with pytest.raises(UnknownRev):
        resolve(faulty.template, "00000")


@pytest.mark.parametrize(
    "fault", (replaced(listing(REFS_MAX + 1) + FLUSH), *thorough(endless(listing(1000))))
)
def test_a_listing_is_read_up_to_a_limit(faulty: FaultyGitHost, fault: Fault) -> None:
    faulty.faults[Question.LS_REFS] = fault

    for rev in ("main", "abcdef"):
        with pytest.raises(UnknownRev, match="too many refs"):
            resolve(faulty.template, rev)
    with pytest.raises(SourceRefused, match=r"too many refs .*reachable"):
        known(faulty.template, ID, reachable=True)
    assert known(faulty.template, f"{999:040x}", reachable=True)
    assert resolve(faulty.template, "refs/heads/0000999") == f"{999:040x}"


@pytest.mark.parametrize(
    "body",
    (
        b"",
        b"0000"[:3],
        line(b"%s refs/heads/main\n" % ID.encode()),
        line(b"%s refs/heads/main\n" % ID.encode()) + b"0001",
        line(b"%s refs/heads/main\n" % ID.encode()) + b"0000more",
        line(b"%s refs/heads/main\n" % ID.encode()) + b"00000000",
        line(b"%s refs/heads/main\n" % ID[:39].encode()) + FLUSH,
        line(b"%s refs/heads/main\n" % (b"a" * 64)) + FLUSH,
        line(b"%s refs/heads/main\n" % ID.upper().encode()) + FLUSH,
        line(b"%s\n" % ID.encode()) + FLUSH,
        line(b"unborn HEAD symref-target:refs/heads/main\n") + FLUSH,
        line(b"") + FLUSH,
        b"zzzz",
        b"<html>secret</html>",
        b"ffff" + b"a" * 70_000,
    ),
)
def test_only_a_listing_of_refs_is_accepted(faulty: FaultyGitHost, body: bytes) -> None:
    faulty.faults[Question.LS_REFS] = replaced(body)

    with pytest.raises(SourceUnavailable) as raised:
        resolve(faulty.template, "main")

    assert "secret" not in raised.value.message


def test_a_listing_that_breaks_off_is_not_an_unknown_rev(faulty: FaultyGitHost) -> None:
    faulty.faults[Question.LS_REFS] = broken_off(30)

    with pytest.raises(SourceUnavailable):
        resolve(faulty.template, "no-such-branch")


def test_lookups_are_counted_by_their_outcome(git_host: GitHost, repository: GitRepository) -> None:
    def count(outcome: str) -> float:
        labels = {"source": SOURCE, "outcome": outcome}
        return REGISTRY.get_sample_value("archiver_resolves_total", labels) or 0

    node = repository.commit(SIMPLE)
    before = (count("ok"), count("unknown_rev"))
    resolve(git_host.template, "main")
    resolve(git_host.template, node)
    known(git_host.template, node)
    with pytest.raises(UnknownRev):
        resolve(git_host.template, "nowhere")

    assert (count("ok"), count("unknown_rev")) == (before[0] + 3, before[1] + 1)


def test_a_tag_of_a_file_is_not_looked_into(git_host: GitHost, repository: GitRepository) -> None:
    """A listing does not show kinds of objects. The worker finds out when it has the object."""
    repository.commit(SIMPLE)
    blob = repository.git("rev-parse", "main:README")
    repository.annotated_tag("readme", blob)

    assert resolve(git_host.template, "readme") == blob
