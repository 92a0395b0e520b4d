"""A stream that ends only if it is a whole archive."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from archiver.building.completeness import CompletenessProof
from archiver.errors import BadArchive, InternalError
from archiver.model import Completeness, Verified
from archiver.ports.formats import Verifier


class VerifiedStream:
    """Passes chunks on after the verifier has read them; with a *proof*, checks completeness too.

    ``verified`` and ``completeness`` are known once all chunks were read.
    """

    def __init__(
        self,
        stream: AsyncGenerator[bytes, None],
        verifier: Verifier,
        proof: CompletenessProof | None = None,
    ) -> None:
        self._stream = stream
        self._verifier = verifier
        self._proof = proof
        self._verified: Verified | None = None
        self.completeness = Completeness.TRUSTED

    @property
    def verified(self) -> Verified:
        if self._verified is None:
            raise InternalError("a stream was used before its end")
        return self._verified

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the chunks. The end means that the archive is whole.

        Raises:
            BadArchive: It is not.
            NotPackable: It never will be: the host cannot pack this tree in this format.
            ArchiverError: As the stream, and as ``Source.last_file``.
        """
        try:
            async with aclosing(self._stream):
                async for chunk in self._stream:
                    await self._verifier.update(chunk)
                    if self._proof:
                        self._proof.raise_failure()
                    yield chunk
            verified = await self._verifier.finish()
            if self._proof:
                self.completeness = await self._proof.conclude(verified.last_file)
        except BadArchive as exc:
            proof = self._proof
            if proof and (reason := await proof.explain(exc, self._verifier.last_file)):
                raise reason from exc
            raise
        self._verified = verified
