"""The last count of what is stored, in the memory of one process."""

from archiver.errors import EngineUnavailable
from archiver.ports.stock import Stock


class MemoryStockBook:
    """Implements ``StockBook``. ``down`` makes it unavailable."""

    def __init__(self) -> None:
        self.down = False
        self._stock: Stock | None = None

    async def read(self) -> Stock | None:
        self._raise_if_down()
        return self._stock

    async def write(self, stock: Stock) -> None:
        self._raise_if_down()
        self._stock = stock

    def _raise_if_down(self) -> None:
        if self.down:
            raise EngineUnavailable("the engine does not answer")
