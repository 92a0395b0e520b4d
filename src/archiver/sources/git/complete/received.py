"""How much the hosts of a complete archive have sent."""

from archiver.ports.source import OnReceived


class Received:
    """Adds up what the hosts of several repositories have sent. Says nothing if it ``is_mute``."""

    def __init__(self, on_received: OnReceived | None) -> None:
        self.is_mute = False
        self._on_received = on_received
        self._sizes: list[int] = []

    def report(self) -> None:
        if self._on_received and not self.is_mute:
            self._on_received(sum(self._sizes))

    def counter(self) -> OnReceived:
        """Return what takes the number of bytes that one of them has sent so far."""
        number = len(self._sizes)
        self._sizes.append(0)

        def count(size_bytes: int) -> None:
            self._sizes[number] = size_bytes
            self.report()

        return count
