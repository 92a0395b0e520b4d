"""What the URLs of submodules mean. They are only compared, never contacted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.sources.git.complete.submodule_url import (
    RepoTemplate,
    parse_url,
    plain_url,
    resolve_url,
)

BASE = "https://git.example/team/app"


@pytest.mark.parametrize(
    ("url", "expected"),
    (
        ("../lib", "https://git.example/team/lib"),
        ("../lib.git/", "https://git.example/team/lib.git"),
        ("../../other/lib", "https://git.example/other/lib"),
        ("./sub", "https://git.example/team/app/sub"),
        ("./../lib", "https://git.example/team/lib"),
        ("../../../lib", ""),
        ("../../../../../lib", ""),
        ("../..", "https://git.example/team/.."),  # git does the same, and no repo has the name
        ("https://elsewhere.example/lib", "https://elsewhere.example/lib"),
    ),
)
def test_a_relative_url_is_resolved_as_git_does(url: str, expected: str) -> None:
    assert resolve_url(url, BASE) == expected
    assert resolve_url(url, f"{BASE}/") == expected


@pytest.mark.parametrize(
    "url",
    (
        "https://git.example/team/lib",
        "https://git.example/team/lib.git",
        "https://git.example/team/lib/",
        "http://git.example/team/lib.git",
        "HTTPS://git.example/team/lib".replace("HTTPS", "https"),
        "https://GIT.example:443/team/lib",
        "https://someone:secret@git.example/team/lib.git",
        "git://git.example/team/lib.git",
        "ssh://git@git.example/team/lib.git",
        "ssh://git@git.example:2222/team/lib.git",
        "git+ssh://git@git.example/team/lib",
        "git@git.example:team/lib.git",
        "git.example:team/lib",
        "git@git.example:/team/lib.git",
        "https://git.example/team/l%69b",
    ),
)
def test_every_form_of_a_known_host_is_understood(url: str) -> None:
    for template in ("https://git.example/{repo}", "https://git.example/{repo}.git"):
        address = parse_url(url)
        assert address, url
        assert RepoTemplate(template, any_protocol=True).repos(address)[0] == "team/lib"


def test_a_host_without_git_at_the_end_of_its_urls_may_have_it_in_a_name() -> None:
    address = parse_url("https://git.example/lib.git")
    assert address
    plain = RepoTemplate("https://git.example/{repo}", any_protocol=True)
    assert plain.repos(address) == ("lib", "lib.git")
    ending = RepoTemplate("https://git.example/{repo}.git", any_protocol=True)
    assert ending.repos(address) == ("lib",)


def test_the_parts_around_the_repo_must_match() -> None:
    template = RepoTemplate("https://git.example/scm/{repo}/_git", any_protocol=True)
    found = {
        url: template.repos(address)
        for url in (
            "https://git.example/scm/a/b/_git",
            "https://git.example/a/b/_git",
            "https://git.example/scm/a/b",
        )
        if (address := parse_url(url))
    }
    assert list(found.values()) == [("a/b",), (), ()]


@pytest.mark.parametrize(
    "url",
    (
        "file:///etc/passwd",
        "/srv/git/lib.git",
        "C:\\git\\lib",
        "ext::sh -c id% >&2",
        "--upload-pack=touch /tmp/x",
        "-oProxyCommand=id:lib",
        "ssh://-oProxyCommand=id/lib",
        "https://git.example.evil.example/team/lib",
        "https://git.example@evil.example/team/lib",
        "https://evil.example/https://git.example/team/lib",
        "https://git.example:8443/team/lib",
        "https://git.example/team/../../secret",
        "https://git.example/team/%2e%2e/secret",
        "https://git.example/team%2fsecret",
        "https://git.example/team/lib?x=y",
        "https://git.example/team/lib#x",
        "https://git.example/team//lib",
        "https://git.example/team/lib\n",
        "https://git.example/team/l\u202eib",
        "https://git.example/-",
        "https://git.example/",
        "https://git.example",
        "git@evil.example:git.example/team/lib",
        "https://[::1]/team/lib",
        "lib",
        "",
        "https://git.example/" + "a" * 5000,
    ),
)
def test_a_url_of_anything_else_means_no_repo(url: str) -> None:
    address = parse_url(resolve_url(url, BASE))
    for template in ("https://git.example/{repo}", "https://git.example/{repo}.git"):
        assert address is None or RepoTemplate(template, any_protocol=True).repos(address) == ()


def test_further_urls_match_with_their_port_only() -> None:
    template = RepoTemplate("ssh://git@ssh.example:2222/{repo}.git", any_protocol=False)
    for url, expected in (
        ("ssh://git@ssh.example:2222/a.git", ("a",)),
        ("ssh://other@ssh.example:2222/a", ("a",)),
        ("ssh://git@ssh.example/a.git", ()),
        ("https://ssh.example:2222/a.git", ()),
    ):
        address = parse_url(url)
        assert address
        assert template.repos(address) == expected, url


@given(st.text(max_size=60) | st.text("abc:/.@-%2f~[]?#", max_size=40))
def test_no_url_breaks_the_parser_or_a_message(url: str) -> None:
    address = parse_url(resolve_url(url, BASE))
    if address:
        RepoTemplate("https://git.example/{repo}", any_protocol=True).repos(address)
    assert plain_url(url).isprintable()


def test_a_message_has_no_credentials_of_a_url() -> None:
    for url in ("https://me:secret@git.example/a", "secret@git.example:a", "ssh://secret@h/a@b"):
        assert "secret" not in plain_url(url)
