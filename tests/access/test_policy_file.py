"""The policy is read again when its file changes."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from archiver.access.access import ANONYMOUS, Access
from archiver.access.policy import Policy
from archiver.access.scopes import Scope
from archiver.access.tokens import create_token, hash_token
from archiver.errors import Unauthenticated
from archiver.runtime.tasks import in_background
from archiver.settings import access_policy, load, policy_file

SOURCE = (
    '[sources.hgmo]\nurl_template = "http://127.0.0.1/{repo}/archive/{rev}.{suffix}/{subdir}"\n'
)

OFTEN = timedelta(milliseconds=10)


def settings_with(token: str) -> str:
    return f'{SOURCE}[tokens.ci]\nhash = "{hash_token(token)}"\n'


def authenticates(access: Access, token: str) -> bool:
    try:
        return bool(
            access.authenticate([(b"authorization", f"Bearer {token}".encode())], from_proxy=False)
        )
    except Unauthenticated:
        return False


def test_a_changed_file_applies_without_a_restart(tmp_path: Path) -> None:
    path, first, second = tmp_path / "archiver.toml", create_token(), create_token()
    path.write_text(settings_with(first))

    async def scenario() -> None:
        access = Access(access_policy(load(path)))
        assert authenticates(access, first)
        changed = asyncio.Event()
        access.changes.add(changed.set)
        with capture_logs() as lines:
            async with in_background(policy_file(path, check_interval=OFTEN).follow(access)):
                path.write_text("not TOML")
                while not any(line["event"] == "access.unreadable" for line in lines):
                    await asyncio.sleep(0.01)
                assert authenticates(access, first)
                replacement = tmp_path / "new"
                replacement.write_text(settings_with(second))
                replacement.rename(path)
                await changed.wait()
        assert not authenticates(access, first)
        assert authenticates(access, second)
        assert first not in str(lines)

    asyncio.run(scenario())


@pytest.mark.parametrize("text", ("", "# a comment\n"))
def test_a_change_of_other_settings_changes_no_policy(tmp_path: Path, text: str) -> None:
    path, token = tmp_path / "archiver.toml", create_token()
    path.write_text(settings_with(token))

    async def scenario() -> None:
        access = Access(access_policy(load(path)))
        changes: list[Policy] = []
        access.changes.add(lambda: changes.append(access.policy))
        async with in_background(policy_file(path, check_interval=OFTEN).follow(access)):
            path.write_text(settings_with(token) + f'{text}[log]\nlevel = "error"\n')
            await asyncio.sleep(0)
            path.write_text(SOURCE)
            while not changes:
                await asyncio.sleep(0.01)
        assert [len(policy.grants) for policy in changes] == [0]

    asyncio.run(scenario())


def test_a_file_that_was_cut_off_opens_nothing_and_can_be_restored(tmp_path: Path) -> None:
    path, token = tmp_path / "archiver.toml", create_token()
    closed = f'{SOURCE}private = true\n[access]\nanonymous = "none"\n'
    path.write_text(closed)

    async def scenario() -> None:
        access = Access(access_policy(load(path)))
        with capture_logs() as lines:
            async with in_background(policy_file(path, check_interval=OFTEN).follow(access)):
                path.write_text(SOURCE)
                while not any(line["event"] == "access.needs_restart" for line in lines):
                    await asyncio.sleep(0.01)
                assert access.scope(ANONYMOUS, "hgmo") is Scope.NONE
                with pytest.raises(Unauthenticated):
                    access.require_metrics(ANONYMOUS)
                path.write_text(closed + settings_with(token).removeprefix(SOURCE))
                while not authenticates(access, token):
                    await asyncio.sleep(0.01)
        (warning,) = [line for line in lines if line["event"] == "access.needs_restart"]
        assert warning["settings"] == ["sources.hgmo"]

    asyncio.run(scenario())
