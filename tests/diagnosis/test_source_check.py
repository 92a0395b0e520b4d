"""The findings about hosts, on real ones."""

import ssl
from collections.abc import Sequence
from typing import Any

import pytest

from archiver.diagnosis.finding import Finding, Level
from archiver.diagnosis.source_check import Sample
from tests import git_repositories
from tests.diagnosis.diagnosing import diagnose, of, unwell
from tests.parts.git_host import REPO, GitHost
from tests.parts.hgweb import ASH, Ash, Hgweb
from tests.parts.process import free_port
from tests.parts.raw_server import raw_server
from tests.parts.secured_nats import Certificates

TEMPLATE = "/{repo}/archive/{rev}.{suffix}/{subdir}"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def examine(source: dict[str, Any], *samples: Sample, name: str = "hgmo") -> list[Finding]:
    by_source: dict[str, Sequence[Sample]] = {name: samples}
    return diagnose({"sources": {name: source}}, only=f"source.{name}", samples=by_source)


def test_a_rev_of_hgweb_is_resolved_and_the_type_of_its_archive_is_compared(
    hgweb: Hgweb, ash: Ash
) -> None:
    found = examine({"url_template": hgweb.template}, Sample(repo=ASH, rev="tip"))
    assert unwell(found) == []
    assert [finding.found for finding in found] == [
        f"the rev tip of {ASH} is {ash.tip}",
        "the host sends tar.gz",
    ]


def test_a_host_that_does_not_serve_a_format(hgweb: Hgweb, ash: Ash) -> None:  # noqa: ARG001 - ash is there
    source = {"url_template": hgweb.template, "suffixes": ["tar.xz"]}
    finding = of(examine(source, Sample(repo=ASH, rev="tip")), "source.hgmo.archive")
    assert finding.level is Level.FAILED
    assert "sources.hgmo" in finding.action


def test_a_repository_that_the_host_does_not_have(hgweb: Hgweb) -> None:
    source = {"url_template": hgweb.template}
    finding = of(examine(source, Sample(repo="no/such", rev="tip")), "source.hgmo.resolve")
    assert finding.level is Level.FAILED
    assert finding.found == "no node: hgmo has no repository no/such (unknown_repo)"


def test_a_rule_that_polls_names_a_repository(hgweb: Hgweb, ash: Ash) -> None:  # noqa: ARG001 - ash is there
    rule = {"source": "hgmo", "repos": [ASH], "branches": ["default"], "poll_s": 60}
    settings = {"sources": {"hgmo": {"url_template": hgweb.template}}, "prewarm": {"rule": rule}}
    found = diagnose(settings, only="source.hgmo")
    assert f"the rev default of {ASH} is " in of(found, "source.hgmo.resolve").found


def test_a_rev_of_a_git_host_is_resolved(git_host: GitHost) -> None:
    repository = git_host.create()
    node = repository.commit(git_repositories.SIMPLE)
    source = {"kind": "git", "url_template": git_host.template}
    found = examine(source, Sample(repo=REPO, rev="HEAD"), name="forge")
    assert unwell(found) == []
    assert node in of(found, "source.forge.resolve").found


def test_without_a_repository_the_host_is_sent_one_request(hgweb: Hgweb) -> None:
    (finding,) = examine({"url_template": hgweb.template})
    assert (finding.check, finding.level) == ("source.hgmo.host", Level.OK)
    assert finding.found == "the host answers (status 200)"


@pytest.mark.parametrize("samples", ((), (Sample(repo=ASH, rev="tip"),)))
def test_a_host_that_is_away(samples: Sequence[Sample]) -> None:
    source = {"url_template": f"http://127.0.0.1:{free_port()}{TEMPLATE}"}
    (finding,) = examine(source, *samples)
    assert (finding.check, finding.level) == ("source.hgmo.host", Level.FAILED)
    assert finding.found == "the host refuses the connection"
    assert finding.action.startswith("check host and port in sources.hgmo.url_template")


def test_a_host_whose_certificate_is_not_trusted(certificates: Certificates) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server)
    with raw_server(lambda link, _: link.sendall(OK), tls=context) as address:
        source = {"url_template": f"https://{address}{TEMPLATE}"}
        (finding,) = examine(source)
        trusting = examine({**source, "ca_file": certificates.authority})
    assert finding.found.startswith("the host's certificate is not trusted")
    assert finding.action.startswith("check sources.hgmo.ca_file")
    assert unwell(trusting) == []


@pytest.mark.parametrize("status", (500, 503))
def test_a_host_that_answers_with_an_error_is_a_warning(status: int) -> None:
    answer = b"HTTP/1.1 %d Broken\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status
    with raw_server(lambda link, _: link.sendall(answer)) as address:
        (finding,) = examine({"url_template": f"http://{address}{TEMPLATE}"})
    assert finding.level is Level.WARNING
    assert finding.found == f"the host answers with the status {status}"


def test_a_redirect_out_of_the_perimeter_is_not_followed() -> None:
    answer = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    with raw_server(lambda link, _: link.sendall(answer)) as address:
        (finding,) = examine({"url_template": f"http://{address}{TEMPLATE}"})
    assert finding.level is Level.FAILED
    assert "sources.hgmo.redirect_hosts" in finding.action


def test_a_host_that_answers_and_cannot_resolve_is_a_failure() -> None:
    error = b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with raw_server(lambda link, _: link.sendall(error)) as address:
        source = {"url_template": f"http://{address}{TEMPLATE}", "allow_private_addresses": True}
        finding = of(examine(source, Sample(repo=ASH, rev="tip")), "source.hgmo.resolve")
    assert finding.level is Level.FAILED
