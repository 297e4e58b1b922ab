"""A worker's pools of decoding processes: none of them waits for another's work."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pgclip.settings import Settings
from pgclip_workers.machine import decoding_processes
from pgclip_workers.pictures.decode import Picture, Pixels
from pgclip_workers.pictures.decoders import Decoders, is_remote
from pgclip_workers.pictures.hosts import Hosts
from pgclip_workers.pictures.preprocessing import Preprocessing
from pgclip_workers.pictures.refused import Refused


def _as_fetched(answer: Pixels | Refused) -> Pixels | Refused:
    """Of a picture from elsewhere it is its source that takes too long, which may pass."""
    if isinstance(answer, Refused) and answer.reason == "decoder_timeout":
        return Refused("fetch_failed", f"it took too long: {answer.message}", 0.0)
    return answer


@dataclass(frozen=True)
class Pools:
    """Pictures at hand, pictures from the network, pictures that are queries.

    A site that does not answer holds a process for as long as fetching may take, so those that
    fetch are others, and more: they wait more than they work.
    """

    pictures: Decoders
    fetched: Decoders
    queries: Decoders
    hosts: Hosts

    @classmethod
    def start(cls, settings: Settings) -> "Pools":
        """Returns when a process answers. The others start with the first picture for them."""
        processes = settings.decoders or decoding_processes(settings.device)
        fetchers = settings.fetchers if settings.urls else 1  # one, which refuses
        pools = cls(Decoders(settings, processes), Decoders(settings, fetchers),
                    Decoders(settings, 1), Hosts(fetchers))  # fmt: skip
        pools.pictures.warm_up()
        return pools

    def decode(
        self, pictures: Sequence[Picture], preprocessing: Preprocessing
    ) -> list[Pixels | Refused]:
        """As Decoders.decode; pictures from the network and others at the same time."""
        remote = [picture for picture in pictures if is_remote(picture.source)]
        if not remote:
            return self.pictures.decode(pictures, preprocessing)
        near = [picture for picture in pictures if not is_remote(picture.source)]
        with ThreadPoolExecutor(1, "remote") as fetching:
            awaited = fetching.submit(self._fetch, remote, preprocessing)
            decoded = iter(self.pictures.decode(near, preprocessing))
            fetched = iter(awaited.result())
        return [next(fetched if is_remote(picture.source) else decoded) for picture in pictures]

    def _fetch(
        self, pictures: Sequence[Picture], preprocessing: Preprocessing
    ) -> list[Pixels | Refused]:
        """In rounds: a host that does not answer in one is left alone in the next."""
        answers: dict[int, Pixels | Refused] = {}
        left = [(n, picture.source or "") for n, picture in enumerate(pictures)]
        while left:
            turned_away, left = self.hosts.turn_away(left)
            answers |= turned_away
            chosen, left = self.hosts.next_round(left)
            decoded = map(
                _as_fetched, self.fetched.decode([pictures[n] for n, _ in chosen], preprocessing)
            )
            answers |= zip((n for n, _ in chosen), decoded, strict=True)
            self.hosts.heard([(source, answers[n]) for n, source in chosen])
        return [answers[n] for n in range(len(pictures))]

    @property
    def moved(self) -> float:
        """When a picture was last begun or ended, by the monotonic clock."""
        return max(self.pictures.moved, self.fetched.moved)

    def stop(self) -> None:
        """Ends the processes, whatever they are doing."""
        for pool in (self.pictures, self.fetched, self.queries):
            pool.stop()
