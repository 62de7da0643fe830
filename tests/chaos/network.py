"""The network: workers and clients reach Redis and the provider through proxies that may cut connections."""

from __future__ import annotations

from typing import Final, Self

from tests.proxy import How, Proxy, Rule, Way

BYTES_A_STEP: Final = 40
WAYS: Final = (
    (How.RST, Way.UP),
    (How.RST, Way.DOWN),
    (How.FIN, Way.UP),
    (How.FIN, Way.DOWN),
)


class Network:
    """Two proxies, one before Redis and one before the provider; a context manager."""

    def __init__(self, redis_url: str, provider_url: str) -> None:
        self.queue = Proxy(redis_url)
        self.provider = Proxy(provider_url)

    def cut(self, proxy: Proxy, chance: int) -> None:
        """Reset every connection at once, or end one connection at a later byte."""
        how = chance % (len(WAYS) + 1)
        if how == len(WAYS):
            proxy.strike(How.RST)
        else:
            proxy.add(Rule(how=WAYS[how][0], way=WAYS[how][1], at=chance * BYTES_A_STEP))

    def heal(self) -> None:
        """Stop all network faults."""
        self.queue.heal()
        self.provider.heal()

    def __enter__(self) -> Self:
        self.queue.start()
        self.provider.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.provider.stop()
        self.queue.stop()
