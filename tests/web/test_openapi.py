"""``/openapi.json`` describes exactly the existing routes and codes."""

import json
import re
from collections.abc import Callable, Iterator
from importlib import resources
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver import __version__
from archiver.errors import InvalidRequest
from archiver.model import ArchiveRequest, parse_node
from archiver.names import require_name
from archiver.tasks import Failure, TaskState
from archiver.web.api.client_request import parse_region
from archiver.web.app import ROUTES
from archiver.web.problems import STATUSES
from tests.memory_world import ASH, World
from tests.parts.fleet import an_archive
from tests.web.client import PUBLIC_URL, Client, client
from tests.web.test_operations import access, create, get, put


@pytest.fixture
def document(web: Client) -> dict[str, Any]:
    document: dict[str, Any] = web.get("/openapi.json").json
    return document


@pytest.fixture
def operator() -> Iterator[Client]:
    """A service with one archive and one failed task, and a waiting one of a client."""
    with client(World(), access=access()) as web:
        put(web, an_archive())
        create(web, 1)
        create(web, 1, state=TaskState.RETRY, error=Failure(code="no", message="no"))
        yield web


def statuses_of(operation: dict[str, Any]) -> set[int]:
    return {int(status) for status in operation["responses"]}


def resolved(document: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """Return the target of a reference; any other node unchanged."""
    place: Any = document
    for step in node.get("$ref", "#").split("/")[1:]:
        place = place[step]
    return place if "$ref" in node else node


def test_it_has_the_version_and_the_public_url(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert document["info"]["version"] == __version__
    assert document["servers"] == [{"url": PUBLIC_URL}]


def test_its_paths_are_the_routes(document: dict[str, Any]) -> None:
    described = {
        (path, operation.upper())
        for path, operations in document["paths"].items()
        for operation in operations
        if operation != "parameters"
    }
    assert described == {
        (_described(route.path), each) for route in ROUTES for each in route.methods
    }


def _described(path: str) -> str:
    named = path.replace("{address:path}", "{source}/{repo}/{rev}")
    return named.replace("{file:path}", "{source}/{repo}/{rev}.{suffix}")


COMPONENTS = json.loads(resources.files("archiver.web").joinpath("openapi.json").read_bytes())[
    "components"
]


@given(text=st.text(alphabet="ab0/.-_?#@%\\~ \n\x7fé", max_size=8))
def test_the_patterns_of_names_match_the_parsers(text: str) -> None:
    parameters = COMPONENTS["parameters"]

    def a_rev(rev: str) -> ArchiveRequest:
        return ArchiveRequest(source="hgmo", repo=ASH, rev=rev, subdir="", suffix="zip")

    takes: list[tuple[dict[str, str], Callable[[str], object]]] = [
        (COMPONENTS["schemas"]["Name"], lambda repo: require_name(repo, "repo")),
        (parameters["Rev"]["schema"], a_rev),
        (parameters["PreferredRegion"]["schema"], parse_region),
    ]
    for schema, take in takes:
        pattern = schema["pattern"].replace("$", r"\Z")  # as in JavaScript
        described = re.search(pattern, text) is not None
        assert described == is_taken(take, text), schema


@pytest.mark.parametrize(
    ("target", "path"),
    (
        (f"/archiver/hgmo/{ASH}/tip", "/archiver/{source}/{repo}/{rev}"),
        (f"/get/hgmo/{ASH}/tip.zip", "/get/{source}/{repo}/{rev}.{suffix}"),
        (f"/get/hgmo/{ASH}/tip.zip.sha256", "/get/{source}/{repo}/{rev}.{suffix}.sha256"),
    ),
)
def test_the_parameters_of_an_archive_are_those_that_are_taken(
    web: Client, document: dict[str, Any], target: str, path: str
) -> None:
    described = [resolved(document, each) for each in document["paths"][path]["parameters"]]
    taken = web.get(f"{target}?no=1").json["allowed"].split(", ")
    assert {each["name"] for each in described if each["in"] == "query"} == {*taken, "hop"}


@pytest.mark.parametrize("digits", (12, 39, 40, 41, 63, 64, 65))
def test_the_pattern_of_nodes_matches_the_parser(document: dict[str, Any], digits: int) -> None:
    pattern = document["components"]["headers"]["Node"]["schema"]["pattern"]
    text = "a" * digits

    assert (re.search(pattern, text) is not None) == (parse_node(text) is not None)


def is_taken(take: Callable[[str], object], text: str) -> bool:
    try:
        take(text)
    except InvalidRequest:
        return False
    return True


def test_its_codes_are_those_of_the_problems(document: dict[str, Any]) -> None:
    assert set(document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]) == set(
        STATUSES
    )


def test_each_problem_response_lists_the_codes_of_its_status(document: dict[str, Any]) -> None:
    for name, response in document["components"]["responses"].items():
        listed = re.findall(r"[a-z_]+", response["description"].partition("Codes: ")[2])
        status = int(name.removeprefix("Problem"))
        assert set(listed) == {code for code, of in STATUSES.items() if of == status}


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(node: object) -> set[str]:
        match node:
            case {"$ref": str(reference)}:
                return {reference}
            case dict():
                return set().union(*map(references, node.values()))
            case list():
                return set().union(*map(references, node))
            case _:
                return set()

    found = references(document)
    assert found
    for reference in found:
        assert resolved(document, {"$ref": reference})


def test_a_status_has_the_properties_of_its_schema(web: Client, document: dict[str, Any]) -> None:
    schema = document["components"]["schemas"]["Status"]["properties"]["result"]
    result = web.get("/archiver/status/x").result
    assert result.keys() == schema["properties"].keys() == set(schema["required"])


@pytest.mark.parametrize(("name", "key"), (("Archives", "archives"), ("Tasks", "tasks")))
def test_lists_have_the_properties_of_their_schemas(
    operator: Client, document: dict[str, Any], name: str, key: str
) -> None:
    schema = document["components"]["schemas"][name]
    body = get(operator, key).json
    assert body.keys() == schema["properties"].keys() == set(schema["required"])
    for part, rows in body.items():
        if isinstance(rows, list):
            items = schema["properties"][part]["items"]
            assert rows
            assert all(row.keys() == items["properties"].keys() for row in rows), part


@pytest.mark.parametrize(
    ("route", "target"),
    (
        ("/archiver/{source}/{repo}/{rev}", f"/archiver/hgmo/{ASH}/default"),
        ("/get/{source}/{repo}/{rev}.{suffix}", f"/get/hgmo/{ASH}/default.zip"),
        ("/get/{source}/{repo}/{rev}.{suffix}.sha256", f"/get/hgmo/{ASH}/default.zip.sha256"),
    ),
)
def test_responses_for_archives_have_the_described_headers(
    web: Client, document: dict[str, Any], route: str, target: str
) -> None:
    path = document["paths"][route]
    accepted = web.get(target, prefer="respond-async")
    web.work()
    found = web.get(target)
    elsewhere = web.get(f"{target}?preferred_region=mars")
    for response in (accepted, found, elsewhere):
        described = path["get"]["responses"][str(response.status)]["headers"]
        always = {
            name.lower()
            for name, header in described.items()
            if resolved(document, header).get("required", True)
        }
        assert always <= set(response.headers)
        assert {n for n in response.headers if n.startswith("archiver-")} <= {
            name.lower() for name in described
        }
    only_of_get = {202} | ({302} if route.endswith("sha256") else set())
    assert statuses_of(path["head"]) == statuses_of(path["get"]) - only_of_get
