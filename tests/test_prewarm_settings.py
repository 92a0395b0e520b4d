"""Settings of prewarming and of webhooks."""

import re
from pathlib import Path

import pytest

from archiver.model import Node
from archiver.prewarm.push import Push, RefKind
from archiver.settings import Settings, SettingsError, load
from archiver.wiring.prewarm import create_hooks, prewarm_rules

NODE = Node("a" * 40)
SECRET = "x" * 16
SOURCE = "[sources.lab]\nkind = 'git'\nurl_template = 'https://git.example/{repo}.git'\n"
RULE = "[prewarm.a]\nsource = 'lab'\nrepos = ['a/b']\n"
HGMO_RULE = """
[sources.hgmo]
[prewarm.a]
source = 'hgmo'
repos = ['a']
branches = ['x']
submodules = true
"""
HOOK = "[hooks.h]\nsource = 'lab'\n"


def load_text(folder: Path, text: str) -> Settings:
    config = folder / "archiver.toml"
    config.write_text(SOURCE + text)
    return load(config)


def push(name: str, *, repo: str = "a/b", kind: RefKind = RefKind.BRANCH) -> Push:
    return Push(repo=repo, kind=kind, name=name, node=NODE)


def test_a_rule_has_an_archive_for_each_subdir_and_suffix(tmp_path: Path) -> None:
    rule = (
        f"{RULE}branches = ['main', 'release/*']\ntags = ['v*']\nsubdirs = ['', 'docs']\n"
        "suffixes = ['zip', 'tar.zst']\nlfs = true"
    )
    (loaded,) = prewarm_rules(load_text(tmp_path, rule))
    archives = [*loaded.archives("lab", push("release/1"))]
    assert {(each.subdir, each.suffix) for each in archives} == {
        *(("", "zip"), ("", "tar.zst"), ("docs", "zip"), ("docs", "tar.zst")),
    }
    assert {(each.node, each.lfs, each.submodules) for each in archives} == {(NODE, True, False)}
    assert [*loaded.archives("lab", push("v1", kind=RefKind.TAG))]
    for other in (
        push("v1"),
        push("main", kind=RefKind.TAG),
        push("mainly"),
        push("main", repo="a/bc"),
    ):
        assert not [*loaded.archives("lab", other)]
    assert not [*loaded.archives("hgmo", push("main"))]


def test_a_rule_for_names_may_poll(tmp_path: Path) -> None:
    rule = f"{RULE}branches = ['main']\nsubdirs = ['', 'docs']\npoll_s = 60"
    (loaded,) = prewarm_rules(load_text(tmp_path, rule))
    assert [(each.rev, each.subdir) for each in loaded.polled()] == [("main", ""), ("main", "docs")]


@pytest.mark.parametrize(
    ("text", "problem"),
    (
        (RULE, "branches"),
        (f"{RULE}branches = []", "branches"),
        ("[prewarm.a]\nsource = 'lab'\nbranches = ['x']", "repos"),
        ("[prewarm.a]\nsource = 'x'\nrepos = ['a']\nbranches = ['x']", "not configured"),
        ("[prewarm.'a b']\nsource = 'lab'\nrepos = ['a']\nbranches = ['x']", "not a valid name"),
        (f"{RULE}branches = ['x']\nsuffixes = ['tgz']", "suffixes"),
        (f"{RULE}branches = ['x']\nsubdirs = ['../x']", "subdirs"),
        (f"{RULE}branches = ['x']\nsubdirs = {[str(n) for n in range(101)]}", "subdirs"),
        (f"{RULE}branches = ['x']\npoll_s = 59", "poll_s"),
        (f"{RULE}branches = ['x/*']\npoll_s = 60", "branches"),
        (f"{RULE}tags = ['v1']\npoll_s = 60", "poll_s"),
        (f"{RULE}branches = ['x']\ntags = ['v1']\npoll_s = 60", "poll_s"),
        (f"{RULE}branches = {[f'b{n}' for n in range(101)]}\npoll_s = 60", "poll_s"),
        ("[prewarm.a]\nsource = 'lab'\nrepos = ['*']\nbranches = ['x']\npoll_s = 60", "repos"),
        (HGMO_RULE, "kind git"),
        (f"{HOOK}kind = 'github'", "secret: this or secret_file is required"),
        (
            f"{HOOK}kind = 'github'\nsecret = '{SECRET}'\nsecret_file = '/x'",
            "secret: must not be set together with secret_file",
        ),
        (f"{HOOK}kind = 'github'\nsecret = 'short'", "secret"),
        (f"{HOOK}kind = 'github'\nsecret = ''", "secret: must be 16 to 1024"),
        (f"{HOOK}kind = 'github'\nsecret = '{SECRET} {SECRET}'", "secret"),
        (f"{HOOK}kind = 'bitbucket'\nsecret = '{SECRET}'", "kind"),
        (f"[hooks.h]\nsource = 'x'\nkind = 'gitea'\nsecret = '{SECRET}'", "not configured"),
    ),
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem) as raised:
        load_text(tmp_path, text)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "problems"),
    (
        (f"{RULE}branches = ['x']\nsuffixes = ['tgz']", [r"suffixes\.0: .*tar\.gz.*"]),
        (f"{RULE}branches = 'main'", ["branches: must be a list of strings"]),
        (f"{RULE}branches = ['x', 5]", [r"branches\.1: must be a string"]),
        (
            "[prewarm.a]\nsource = 'lab'\nrepos = []\nbranches = ['x']\nsubdirs = []",
            [
                "repos: must be a list that is not empty",
                "subdirs: must be a list that is not empty",
            ],
        ),
    ),
)
def test_a_wrong_list_is_explained_once_and_in_words_of_toml(
    tmp_path: Path, text: str, problems: list[str]
) -> None:
    with pytest.raises(SettingsError) as raised:
        load_text(tmp_path, text)
    for line, problem in zip(str(raised.value).splitlines(), problems, strict=True):
        assert re.fullmatch(rf"prewarm\.a\.{problem}", line)


@pytest.mark.parametrize(
    ("text", "problem"),
    (
        ("[retention]\nrules = 5", "retention.rules: must be a list of tables"),
        ("[server]\ntrusted_proxies = 'x'", "server.trusted_proxies: must be a list of strings"),
        ("[hooks]\nh = 5", "hooks.h: must be a table"),
        ("prewarm = 5", "prewarm: must be a table"),
    ),
)
def test_a_setting_of_another_type_is_explained_in_words_of_toml(
    tmp_path: Path, text: str, problem: str
) -> None:
    config = tmp_path / "archiver.toml"
    config.write_text(text)
    with pytest.raises(SettingsError) as raised:
        load(config)
    assert str(raised.value) == problem


@pytest.mark.parametrize("kind", ("standard", "gitlab"))
@pytest.mark.parametrize("key", ("not-base64-but-long-enough", "c2hvcnQtc2hvcnQ="))
def test_a_standard_secret_needs_a_key(tmp_path: Path, kind: str, key: str) -> None:
    secret = f"whsec_{key}"
    allowed = "16 bytes or more in Base64 after whsec_"
    with pytest.raises(SettingsError, match=rf"^hooks\.h: secret: .*{allowed}") as raised:
        load_text(tmp_path, f"{HOOK}kind = '{kind}'\nsecret = '{secret}'")
    assert key not in str(raised.value)
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n{secret}\n")
    settings = load_text(tmp_path, f"{HOOK}kind = '{kind}'\nsecret_file = '{file}'")
    with pytest.raises(SettingsError, match=rf"^hooks\.h\.secret_file: .*{allowed}") as raised:
        create_hooks(settings)
    assert key not in str(raised.value)


def test_the_secret_of_github_may_begin_like_a_standard_one(tmp_path: Path) -> None:
    secret = f"whsec_{SECRET}!"
    settings = load_text(tmp_path, f"{HOOK}kind = 'github'\nsecret = '{secret}'")
    assert create_hooks(settings)["h"].secrets == (secret,)


def test_a_misspelled_setting_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"prewarm\.a\.branches\?"):
        load_text(tmp_path, f"{RULE}branchs = ['x']")


def test_a_hook_may_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCHIVER_HOOKS__H__SOURCE", "lab")
    monkeypatch.setenv("ARCHIVER_HOOKS__H__KIND", "gitlab")
    monkeypatch.setenv("ARCHIVER_HOOKS__H__SECRET", SECRET)
    (hook,) = create_hooks(load_text(tmp_path, "")).values()
    assert (hook.name, hook.secrets) == ("h", (SECRET,))
    assert SECRET not in repr(hook)


def test_a_file_may_have_two_secrets(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"\n{SECRET}\r\n{'y' * 32}\n\n")
    settings = load_text(tmp_path, f"{HOOK}kind = 'gitea'\nsecret_file = '{file}'")
    assert create_hooks(settings)["h"].secrets == (SECRET, "y" * 32)


def test_a_file_with_three_secrets_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("\n".join(each * 32 for each in "xyz"))
    settings = load_text(tmp_path, f"{HOOK}kind = 'gitea'\nsecret_file = '{file}'")
    with pytest.raises(SettingsError, match=r"^hooks\.h\.secret_file: has more than 2 secrets"):
        create_hooks(settings)


@pytest.mark.parametrize("content", (b"", b"\n", b"short", SECRET.encode() + b" x", b"\xff" * 20))
def test_a_file_without_a_secret_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    settings = load_text(tmp_path, f"{HOOK}kind = 'gitea'\nsecret_file = '{file}'")
    with pytest.raises(SettingsError, match=r"^hooks\.h\.secret_file: each line must be"):
        create_hooks(settings)


def test_a_secret_file_that_is_missing_is_named(tmp_path: Path) -> None:
    settings = load_text(tmp_path, f"{HOOK}kind = 'gitea'\nsecret_file = '{tmp_path}/none'")
    with pytest.raises(SettingsError, match=r"hooks\.h\.secret_file: cannot be read"):
        create_hooks(settings)
