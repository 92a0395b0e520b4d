"""Tokens and their hashes."""

import base64

from hypothesis import given
from hypothesis import strategies as st

from archiver.access.credentials import read_token
from archiver.access.tokens import PREFIX, create_token, hash_token, is_token, is_token_hash


def test_tokens_differ_and_have_256_random_bits() -> None:
    tokens = {create_token() for _ in range(100)}
    assert len(tokens) == 100
    for token in tokens:
        random = token.removeprefix(PREFIX)
        assert len(base64.urlsafe_b64decode(f"{random}=")) == 32
        assert is_token_hash(hash_token(token))
        assert random not in hash_token(token)


def test_a_hash_is_sha256_as_other_programs_compute_it() -> None:
    """``printf abc | sha256sum``."""
    assert hash_token("abc") == (
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


@given(st.text(min_size=1).filter(lambda text: text.isprintable()))
def test_basic_carries_any_password(password: str) -> None:
    encoded = base64.b64encode(f"user:{password}".encode())
    expected = password if len(encoded) < 4000 else None
    assert read_token(b"Basic " + encoded) == expected


@given(st.binary(max_size=5000))
def test_no_header_breaks_the_reader(header: bytes) -> None:
    for scheme in (b"", b"Basic ", b"Bearer "):
        token = read_token(scheme + header)
        assert token is None or not is_token(token)


def test_only_random_tokens_are_tokens() -> None:
    """So that a hash of a guessable text in the settings opens nothing."""
    assert is_token(create_token())
    for text in ("hello", "archiver_hello", f"x{create_token()}", f"{create_token()}\n", ""):
        assert not is_token(text)
