"""Which messages a rank may post, as others arrive: what the event-driven rungs share."""

from collections.abc import Iterator, Sequence

from collectives.ladder.jobs import Placed, messages


class Run:
    """A job under way: a rank posts the sends of its next round when nothing of this one is outstanding."""

    def __init__(self, job: Placed, number: int, buffered: bool) -> None:
        ends, self.number, self.buffered = job.ends.tolist(), number, buffered
        flat = [
            list(zip(*(column.tolist() for column in messages(number, job.ends, each)[1:]), strict=True))
            for each in job.schedule.rounds
            for _ in range(each.repeat)
        ]
        if job.schedule.posted:
            flat = [[each for round_ in flat for each in round_]]
        self.sends: list[dict[int, list[tuple[int, float]]]] = []
        self.outstanding: list[dict[int, int]] = []
        for round_ in flat:
            sends: dict[int, list[tuple[int, float]]] = {}
            waits: dict[int, int] = {}
            for source, destination, size in round_:
                sends.setdefault(source, []).append((destination, size))
                waits[destination] = waits.get(destination, 0) + 1
                if not buffered:
                    waits[source] = waits.get(source, 0) + 1
            self.sends.append(sends)
            self.outstanding.append(waits)
        self.at = dict.fromkeys(ends, -1)
        self.end = job.start_s

    def advance(self, rank: int) -> Iterator[tuple[int, int, float]]:
        """Yield (round, destination, bytes) of all that a rank may post by now."""
        while self.at[rank] < 0 or not self.outstanding[self.at[rank]].get(rank):
            if self.at[rank] + 1 >= len(self.sends):
                return
            self.at[rank] += 1
            for destination, size in self.sends[self.at[rank]].get(rank, ()):
                yield self.at[rank], destination, size

    def done(self, round_: int, rank: int, now: float) -> bool:
        """Note that a message of a round has come to a rank, or left it; return whether that lets it go on."""
        self.outstanding[round_][rank] -= 1
        self.end = max(self.end, now)
        return self.at[rank] == round_ and not self.outstanding[round_][rank]


def runs(jobs: Sequence[Placed], buffered: bool) -> list[Run]:
    """Return jobs, ready to start."""
    return [Run(job, number, buffered) for number, job in enumerate(jobs)]
