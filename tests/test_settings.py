"""Settings: defaults, errors that name the setting, and secrets that stay hidden."""

import json
import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from archiver.settings import (
    EngineSettings,
    Settings,
    SettingsError,
    cloud_ranges_files,
    load,
    require_git,
    setting_variables,
)
from archiver.settings.processes import ServerSettings
from archiver.settings.tree import HGMO_URL_TEMPLATE
from archiver.wiring.breakers import breaker_policies
from tests.parts.secured_nats import Certificates

SECRET = "swordfish"  # noqa: S105 - not one of ours
LOCAL = "http://127.0.0.1:8000/{repo}/archive/{rev}.{suffix}/{subdir}"
WITH_SECRET = LOCAL.replace("//", f"//user:{SECRET}@")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove the settings in the environment of the tests."""
    for name in os.environ:
        if name.startswith("ARCHIVER_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def load_toml(text: str) -> Settings:
    """Return the settings of a TOML file with *text*."""
    path = Path("settings.toml")
    path.write_text(text)
    return load(path)


def load_error(text: str) -> str:
    with pytest.raises(SettingsError) as refused:
        load_toml(text)
    assert SECRET not in str(refused.value)
    return str(refused.value)


def test_the_default_source_is_hg_mozilla_org_which_serves_only_zip() -> None:
    settings = load()
    assert settings.sources["hgmo"].url_template == HGMO_URL_TEMPLATE
    assert settings.sources["hgmo"].served.suffixes == ("zip",)
    assert settings.server.url == "http://127.0.0.1:8010"
    assert (settings.engine.servers, settings.regions) == ((), {})


def test_hgmo_at_another_host_serves_all_formats_of_hgweb() -> None:
    settings = load_toml(f'[sources.hgmo]\nurl_template = "{LOCAL}"')
    assert settings.sources["hgmo"].served.suffixes == ("tar.gz", "tar.bz2", "zip")


def test_another_source_replaces_hgmo() -> None:
    assert [*load_toml(f'[sources.x]\nurl_template = "{LOCAL}"').sources] == ["x"]


def test_hgmo_can_be_configured_beside_another_source() -> None:
    settings = load_toml(f'[sources.x]\nurl_template = "{LOCAL}"\n[sources.hgmo]')
    assert {*settings.sources} == {"x", "hgmo"}
    assert settings.sources["hgmo"].url_template == HGMO_URL_TEMPLATE
    assert settings.sources["hgmo"].served.suffixes == ("zip",)


def test_the_originals_variable_configures_hgmo_beside_another_source(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ARCHIVER_HGMO_URL_TEMPLATE", LOCAL)
    assert {*load_toml(f'[sources.x]\nurl_template = "{LOCAL}"').sources} == {"x", "hgmo"}


def test_regions_keep_the_order_of_the_file() -> None:
    text = "".join(f'[regions.{name}]\nbucket = "bucket-{name}"\n' for name in ("z", "a", "m"))
    assert list(load_toml(text).regions) == ["z", "a", "m"]


def test_a_network_is_near_only_one_region() -> None:
    text = ""
    for name, network in (("a", "10.0.0.0/8"), ("b", "10.1.0.0/16"), ("c", "::ffff:10.0.0.0/104")):
        text += f'[regions.{name}]\nbucket = "bucket"\nnetworks = ["{network}"]\n'
    assert "regions.c.networks: 10.0.0.0/8 is also listed for a" in load_error(text)
    assert len(load_toml(text.partition("[regions.c]")[0]).regions) == 2


def test_a_cloud_region_is_near_only_one_region() -> None:
    for kind in ("aws_regions", "google_regions"):
        text = "".join(f'[regions.{n}]\nbucket = "bucket"\n{kind} = ["x"]\n' for n in "ab")
        assert f"regions.b.{kind}: x is also listed for a" in load_error(text)


def test_cloud_regions_are_mapped_to_the_regions_that_list_or_share_their_names() -> None:
    settings = load_toml(
        '[server]\naws_ranges = "aws.json"\ngoogle_ranges = "google.json"\n'
        '[regions.us-east-1]\nbucket = "bucket"\naws_regions = ["us-east-2"]\n'
        '[regions.west]\nbucket = "bucket"\naws_region = "us-west-2"\n'
        '[regions.mine]\nbucket = "bucket"\naws_region = "us-west-2"\n'
        'google_regions = ["us-west1"]\naws_regions = ["us-gov-west-1"]\n'
        '[regions.us-east4]\nbucket = "bucket"\naws_region = "us-gov-west-1"\n'
    )
    aws, google = cloud_ranges_files(settings)
    assert (aws.path, google.path) == (Path("aws.json"), Path("google.json"))
    assert aws.homes == {
        "us-east-1": "us-east-1",
        "us-east-2": "us-east-1",
        "us-west-2": "west",
        "us-gov-west-1": "mine",
    }
    assert google.homes == {
        "us-east-1": "us-east-1",
        "west": "west",
        "mine": "mine",
        "us-west1": "mine",
        "us-east4": "us-east4",
    }
    assert cloud_ranges_files(load()) == []


def test_networks_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHIVER_SERVER__TRUSTED_PROXIES", '["10.0.0.0/8", "2001:DB8::/32"]')
    assert load().server.trusted_proxies == ("10.0.0.0/8", "2001:db8::/32")


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHIVER_SERVER__LISTEN", "0.0.0.0:80")
    settings = load_toml('[server]\nlisten = "127.0.0.1:1"\npublic_url = "https://a.example/"')
    assert settings.server.listen == "0.0.0.0:80"
    assert settings.server.url == "https://a.example"


def test_the_originals_variables_keep_working(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHIVER_HGMO_URL_TEMPLATE", LOCAL)
    monkeypatch.setenv("ARCHIVER_S3_BUCKETS", json.dumps({"us-east-1": "b-one", "x": "b-two"}))
    settings = load()
    assert settings.sources["hgmo"].url_template == LOCAL
    assert {name: region.bucket for name, region in settings.regions.items()} == {
        "us-east-1": "b-one",
        "x": "b-two",
    }


@pytest.mark.parametrize("value", ("{", "[1]", "3", '"a"', "null"))
def test_malformed_buckets_are_rejected_by_name(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("ARCHIVER_S3_BUCKETS", value)
    with pytest.raises(SettingsError, match="ARCHIVER_S3_BUCKETS"):
        load()


def test_the_file_is_found_through_the_environment_or_in_the_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("archiver.toml").write_text("[server]\nretry_after_s = 7")
    Path("other.toml").write_text("[server]\nretry_after_s = 8")
    assert load().server.retry_after_s == 7
    monkeypatch.setenv("ARCHIVER_CONFIG", "other.toml")
    assert load().server.retry_after_s == 8


def test_a_missing_file_is_named() -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.toml"):
        load(Path("nowhere.toml"))


def test_a_file_that_is_not_toml_is_named_and_not_quoted() -> None:
    assert "settings.toml" in load_error(f"[engine]\npassword = {SECRET}\n")
    assert "settings.toml" in load_error(f'[engine]\npassword = "{SECRET}\n')


@pytest.mark.parametrize(
    ("text", "named"),
    (
        (f'[engine]\npasword = "{SECRET}"', "engine.pasword"),
        ("[engine]\nlease_s = 0", "engine.lease_s"),
        ("[engine]\nreplicas = 2", "engine.replicas"),
        (f'[engine]\npassword = ["{SECRET}"]', "engine.password"),
        ('[server]\nlisten = "nonsense"', "server.listen"),
        ('[server]\nlisten = "127.0.0.1:65536"', "server.listen"),
        ('[server]\nlisten = "0.0.0.0:80"', "public_url"),
        ('[server]\nlisten = "[::]:80"', "public_url"),
        ('[server]\npublic_url = "ftp://a"', "server.public_url"),
        ('[server]\npublic_url = "http://[a"', "server.public_url"),
        ('[server]\npublic_url = "https://a/?b"', "server.public_url"),
        ("[server]\npresigned_ttl_s = 10000000", "server.presigned_ttl_s"),
        ("[regions.a]", "regions.a.bucket"),
        (f'[regions.a]\nbucket = "abc"\nsecret_access_key = "{SECRET}"', "regions.a"),
        ('[server]\ntrusted_proxies = ["10.0.0.1/8"]', "server.trusted_proxies"),
        (f'[server]\ntrusted_proxies = ["{SECRET}"]', "server.trusted_proxies"),
        ('[regions.a]\nbucket = "abc"\nnetworks = ["::1/64"]', "regions.a.networks"),
        ('[regions.a]\nbucket = "abc"\nnearest = ["b"]', "regions.a.nearest"),
        ('[regions."A/b"]\nbucket = "abc"', "A/b"),
        ('[sources.status]\nurl_template = "' + LOCAL + '"', "status"),
        ("[sources.x]", "sources.x.url_template"),
        ('[sources.x]\nurl_template = "http://h/{repo}"', "sources.x"),
        ('[sources.hgmo]\nurl_template = "http://[h/{repo}"', "sources.hgmo"),
        ('[sources.hgmo]\nurl_template = "http://{repo}/{rev}{suffix}/{subdir}"', "sources.hgmo"),
        (f'[sources.hgmo]\nurl_template = "{WITH_SECRET}"', "sources.hgmo"),
        (f'[sources.hgmo]\nredirect_hosts = ["https://{SECRET}/"]', "sources.hgmo"),
        (f'[sources]\nhgmo = "{SECRET}"', "sources.hgmo"),
        (f'sources = "{SECRET}"', "sources"),
        ("sources = 3", "sources"),
        ("[sources]", "sources: is empty"),
        ("[sources]\nhgmo = 3", "sources.hgmo"),
        ("[worker]\nconcurrency = 0", "worker.concurrency"),
        ('[log]\nformat = "xml"', "log.format"),
        ('nonsense = "a"', "nonsense"),
    ),
)  # fmt: skip
def test_a_wrong_setting_is_named_and_its_value_is_not_shown(text: str, named: str) -> None:
    assert named in load_error(text)


@pytest.mark.parametrize(
    ("text", "said"),
    (
        ('server.listen = "nonsense"', "server.listen: must be host:port"),
        ("server.listn = 3", "server.listn: no such setting; did you mean server.listen?"),
        ("servr.listen = 3", "servr: no such setting; did you mean server?"),
        (
            "sources.x.fetch_sufix = 3",
            "sources.x.fetch_sufix: no such setting; did you mean sources.x.fetch_suffix?",
        ),
        ("nonsense = 3", "nonsense: no such setting"),
        ("[sources]", "sources: is empty; name a source, or remove the table to use `hgmo`"),
    ),
)
def test_errors_have_our_own_messages(text: str, said: str) -> None:
    assert said in load_error(text).splitlines()


def test_every_wrong_setting_is_named_at_once() -> None:
    text = load_error("[engine]\nlease_s = 0\n[worker]\nconcurrency = 0")
    assert "engine.lease_s" in text
    assert "worker.concurrency" in text


def test_a_wrong_variable_is_named_and_its_value_is_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ARCHIVER_REGIONS", f'{{"{SECRET}"')
    with pytest.raises(SettingsError, match=r"^ARCHIVER_REGIONS: must be JSON$") as refused:
        load()
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("variable", "likely"),
    (
        ("ARCHIVER_SERVR__LISTEN", "ARCHIVER_SERVER__LISTEN"),
        ("ARCHIVER_SERVER__LISTN", "ARCHIVER_SERVER__LISTEN"),
        ("archiver_server__listn", "ARCHIVER_SERVER__LISTEN"),
        ("ARCHIVER_SERVER__LISTEN__PORT", "ARCHIVER_SERVER__LISTEN"),
        ("ARCHIVER_SERVER_LISTEN", "ARCHIVER_SERVER__LISTEN"),
        ("ARCHIVER_SERVICE_HOSTS", ""),
        ("ARCHIVER_SOURCES__X__URL_TEMPLAT", "ARCHIVER_SOURCES__X__URL_TEMPLATE"),
        ("ARCHIVER_NONSENSE", ""),
        ("ARCHIVER_", ""),
    ),
)
def test_a_variable_without_a_setting_is_rejected_by_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, likely: str
) -> None:
    monkeypatch.setenv(variable, SECRET)
    with pytest.raises(SettingsError) as refused:
        load()
    hint = f"; did you mean {likely}?" if likely else ""
    assert str(refused.value) == f"{variable}: no such setting{hint}"


def test_a_variable_may_have_any_source_name_but_only_known_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ARCHIVER_SOURCES__STRANGE__URL_TEMPLATE", LOCAL)
    monkeypatch.setenv("archiver_regions__strange__bucket", "bucket")
    monkeypatch.setenv("ARCHIVER_LOG", '{"level": "error"}')
    settings = load()
    assert ([*settings.sources], [*settings.regions]) == (["strange"], ["strange"])
    assert settings.log.level == "error"
    monkeypatch.setenv("ARCHIVER_SOURCES__STRANGE__NONSENSE", "1")
    with pytest.raises(SettingsError, match="ARCHIVER_SOURCES__STRANGE__NONSENSE: no such setting"):
        load()


def test_variables_of_kubernetes_for_a_service_of_our_name_are_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for service in ("ARCHIVER", "ARCHIVER_WEB"):
        monkeypatch.setenv(f"{service}_SERVICE_HOST", "10.0.0.1")
        monkeypatch.setenv(f"{service}_SERVICE_PORT_HTTP", "80")
        monkeypatch.setenv(f"{service}_PORT", "tcp://10.0.0.1:80")
        monkeypatch.setenv(f"{service}_PORT_80_TCP_ADDR", "10.0.0.1")
    assert load()
    assert setting_variables() == []


def test_secrets_are_not_in_the_repr_of_the_settings() -> None:
    settings = load_toml(
        f'[engine]\nuser = "me"\npassword = "{SECRET}"\n'
        f'[regions.a]\nbucket = "abc"\naccess_key_id = "k"\nsecret_access_key = "{SECRET}"'
    )
    assert SECRET not in repr(settings)
    assert SECRET not in str(settings.model_dump(mode="json"))


def test_settings_are_frozen() -> None:
    settings = load()
    with pytest.raises(ValueError, match="frozen"):
        settings.server.retry_after_s = 9


def test_the_version_comes_from_the_file_in_the_image(tmp_path: Path) -> None:
    file = tmp_path / "version.json"
    file.write_text('{"commit": "abc", "build": "https://ci.example/1"}')
    server = ServerSettings(version_file=file)

    assert server.version("1.2") == {
        "version": "1.2",
        "commit": "abc",
        "build": "https://ci.example/1",
    }
    assert ServerSettings().version("1.2") == {"version": "1.2"}


@pytest.mark.parametrize("text", ("[]", "3", "{", ""))
def test_an_unreadable_version_file_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "version.json"
    file.write_text(text)

    with pytest.raises(SettingsError, match=r"server\.version_file"):
        ServerSettings(version_file=file).version("1.2")


def engine(**settings: Any) -> EngineSettings:  # noqa: ANN401 - whatever a file may say
    return EngineSettings(**settings)


def test_a_login_in_the_engines_url_is_decoded_and_removed_from_the_servers() -> None:
    both = engine(url="nats://me:a%40b%2Fc%2Cd@n1:4222, tls://me:a%40b%2Fc%2Cd@[::1]/")
    assert both.servers == ("nats://n1:4222", "tls://[::1]")
    assert (both.login.user, both.login.password, both.login.token) == ("me", "a@b/c,d", None)
    assert engine(url="nats://t%40ken@n1").login.token == "t@ken"  # noqa: S105
    plain = engine(url="n1:4222,n2", user="me", password="p@w")  # noqa: S106
    assert plain.servers == ("n1:4222", "n2")
    assert (plain.login.user, plain.login.password) == ("me", "p@w")
    assert "p@w" not in repr(plain.login)


def test_files_of_the_engine_are_validated(tmp_path: Path, certificates: Certificates) -> None:
    words = tmp_path / "words"
    words.write_text("swordfish")
    wrong: Sequence[dict[str, object]] = (
        {"ca_file": words},
        {"ca_file": tmp_path / "nowhere"},
        {"tls_cert": words},
        {"tls_cert": certificates.authority},
        {"tls_cert": certificates.client, "tls_key": words},
        {"tls_key": certificates.client},
        {"credentials_file": tmp_path / "nowhere"},
        {"credentials_file": words, "user": "me"},
        {"password": "alone"},
    )
    for settings in wrong:
        with pytest.raises(ValidationError, match=next(iter(settings))) as refused:
            engine(url="nats://n1", **settings)
        assert "swordfish" not in str(refused.value)
    assert engine(url="nats://n1", tls_cert=certificates.client, ca_file=certificates.authority)


def test_replicas_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHIVER_ENGINE__REPLICAS", "3")
    assert load().engine.replicas == 3
    for wrong in ("2", "three", ""):
        monkeypatch.setenv("ARCHIVER_ENGINE__REPLICAS", wrong)
        with pytest.raises(SettingsError, match=r"engine\.replicas"):
            load()


GIT = '[sources.forge]\nkind = "git"\nurl_template = "https://git.example.org/{repo}.git"\n'


def test_a_worker_serves_all_sources_or_those_that_it_names() -> None:
    text = f'{GIT}[sources.x]\nurl_template = "{LOCAL}"\n'
    assert [*load_toml(text).served_sources] == ["forge", "x"]
    assert [*load_toml(f'{text}[worker]\nsources = ["x"]').served_sources] == ["x"]


def test_a_worker_cannot_serve_a_source_that_is_not_configured() -> None:
    message = load_error(f'{GIT}[worker]\nsources = ["forge", "hgmo"]')
    assert message == "worker.sources: 'hgmo' is not a configured source"


def test_the_sources_of_a_worker_can_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ARCHIVER_WORKER__SOURCES", '["forge"]')
    assert [*load_toml(f"{GIT}[sources.hgmo]").served_sources] == ["forge"]
    monkeypatch.setenv("ARCHIVER_WORKER__SOURCES__FORGE", "1")
    assert "ARCHIVER_WORKER__SOURCES__FORGE: no such setting" in load_error(GIT)


def test_git_is_required_only_by_workers_of_git_hosts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    text = f'{GIT}[sources.x]\nurl_template = "{LOCAL}"\n'
    require_git(load_toml(f'{text}[worker]\nsources = ["x"]'))
    with pytest.raises(SettingsError, match="sources of kind git: git is not installed"):
        require_git(load_toml(text))


@pytest.mark.parametrize(
    "url",
    (
        "git@github.com:{repo}.git",
        "ssh://git@github.com/{repo}.git",
        "git://github.com/{repo}.git",
        "github.com/{repo}.git",
    ),
)
def test_a_git_host_needs_an_https_url(url: str) -> None:
    message = load_error(GIT.replace("https://git.example.org/{repo}.git", url))
    assert message == (
        "sources.forge: url_template: use the https URL of the repository; SSH does not work"
    )


@pytest.mark.parametrize("name", ("mirror_max_bytes", "lfs_max_bytes"))
def test_the_caches_of_a_worker_need_at_least_one_gib(name: str) -> None:
    least = 1 << 30
    text = f"[worker]\n{name} = "
    assert getattr(load_toml(f"{text}{least}").worker, name) == least
    assert f"worker.{name}" in load_error(f"{text}{least - 1}")
    page = (Path(__file__).parents[1] / "docs" / "reference" / "settings.md").read_text()
    (row,) = [line for line in page.splitlines() if f"`worker.{name}` |" in line]
    assert "at least 1 GiB" in row


def test_hosts_of_lfs_files_are_hosts() -> None:
    good = load_toml(f'{GIT}lfs_hosts = ["cdn.example.org", "storage.example.org:8443"]\n')
    assert good.sources["forge"].lfs_hosts == ("cdn.example.org", "storage.example.org:8443")
    message = load_error(f'{GIT}lfs_hosts = ["https://cdn.example.org/"]\n')
    assert message == "sources.forge: lfs_hosts: must be a list of host or host:port"


def test_an_object_is_left_over_when_no_build_can_still_commit_it() -> None:
    assert load_toml("").leftover_age == timedelta(days=1)
    slow = load_toml(f'[sources.x]\nurl_template = "{LOCAL}"\ndeadline_s = 86400')
    assert slow.leftover_age == timedelta(days=6)


def test_each_source_and_region_has_a_breaker_with_the_number_of_its_settings() -> None:
    settings = load_toml("""
        [sources.hgmo]
        url_template = "https://hg.example/{repo}/archive/{rev}.{suffix}/{subdir}"
        breaker_failures = 0
        [sources.forge]
        kind = "git"
        url_template = "https://forge.example/{repo}.git"
        [regions.hgmo]
        bucket = "bucket"
    """)
    failures = {name.key: policy.failures for name, policy in breaker_policies(settings).items()}
    assert failures == {
        "breaker.source.hgmo": 0,
        "breaker.source.forge": 10,
        "breaker.region.hgmo": 3,
    }


def test_the_password_and_the_keys_may_stand_in_files(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    (tmp_path / "key").write_text("AKIDTEST\n")
    settings = load_toml(
        '[engine]\nuser = "archiver"\npassword_file = "secret"\n'
        '[regions.one]\nbucket = "archives"\n'
        'access_key_id_file = "key"\nsecret_access_key_file = "secret"\n'
    )
    assert settings.engine.login.password == SECRET
    assert settings.regions["one"].read_access_key_id() == "AKIDTEST"
    assert settings.regions["one"].read_secret_access_key() == SECRET
    assert SECRET not in repr(settings)


@pytest.mark.parametrize(
    ("content", "problem"),
    (
        (None, "cannot be read: No such file or directory"),
        (b"", "must contain one secret of printable ASCII without spaces"),
        (f"{SECRET}\n{SECRET}".encode(), "must contain one secret of printable ASCII"),
        (SECRET.encode() * 1000, "must contain one secret of printable ASCII"),
    ),
    ids=("absent", "empty", "two lines", "too long"),
)
def test_a_file_without_one_secret_is_refused(
    tmp_path: Path, content: bytes | None, problem: str
) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    engine = load_error('[engine]\nuser = "archiver"\npassword_file = "secret"\n')
    region = load_error(
        '[regions.one]\nbucket = "archives"\n'
        'access_key_id = "key"\nsecret_access_key_file = "secret"\n'
    )
    assert engine.startswith(f"engine.password_file: {problem}")
    assert region.startswith(f"regions.one.secret_access_key_file: {problem}")


def test_a_pipe_in_place_of_a_secret_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "secret")
    problem = load_error('[engine]\nuser = "archiver"\npassword_file = "secret"\n')
    assert problem.startswith("engine.password_file: must be a regular file, and no pipe or device")


def test_a_secret_stands_in_the_settings_or_in_a_file_but_not_in_both(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    engine = load_error(
        f'[engine]\nuser = "archiver"\npassword = "{SECRET}"\npassword_file = "secret"\n'
    )
    region = load_error(
        '[regions.one]\nbucket = "archives"\naccess_key_id = "key"\n'
        f'secret_access_key = "{SECRET}"\nsecret_access_key_file = "secret"\n'
    )
    assert "password_file: must not be set together with password" in engine
    assert "secret_access_key_file: must not be set together with secret_access_key" in region
    both = load_error(
        '[regions.one]\nbucket = "archives"\naccess_key_id = "key"\n'
        'access_key_id_file = "secret"\nsecret_access_key_file = "secret"\n'
    )
    assert "access_key_id_file: must not be set together with access_key_id" in both
    assert "go together" in load_error('[regions.one]\nbucket = "archives"\naccess_key_id = "k"')
