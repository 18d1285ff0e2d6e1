"""What a protocol and its software add to the bytes and the latency of a graph's links."""

from dataclasses import dataclass, fields

from topo.errors import Fault, SpecError


@dataclass(frozen=True, slots=True)
class Wire:
    """Link and stack parameters, alike for every link and rank; the default adds nothing.

    A message of b bytes loads its route with b · frame_bytes / payload_bytes, and the way back with
    b · ack_bytes / (payloads_per_ack · payload_bytes). It arrives when its last byte does, plus the latency of the route,
    plus base_s + hop_s · links + turn_s · (ranks per core); then a core handles it for message_s + copy_s_per_byte · b.

    Attributes
    ----------
    payload_bytes, frame_bytes
        Payload of a full segment, and what it takes on the wire.
    ack_bytes, payloads_per_ack
        An acknowledgement on the wire, and how many segments share one.
    burst_bytes
        Depth of the token bucket that shapes each link: after a pause so much passes at once.
    base_s, hop_s
        Software latency of a message, and forwarding latency of every link on its way beyond the graph's own.
    message_s, copy_s_per_byte
        Time of a core for each message, and for each byte of it, once it is there (copy, reduction, wake-up).
    cores
        Cores that all ranks share, as on one machine; 0 where each has its own.
    turn_s
        How long a core stays with one of the ranks that share it: a message waits for so many turns as ranks share one.
    buffered
        Whether a send is done when it is posted (eager); else when its last byte is on the wire.
    pieces, window
        Grain of the queue simulation: pieces of a message, and how many of them a connection keeps in the queue of its
        first link.

    Examples
    --------
    >>> tcp = Wire(payload_bytes=1448, frame_bytes=1514, ack_bytes=66, payloads_per_ack=2)
    >>> round(tcp.framing, 4), round(tcp.acknowledging, 4), Wire().framing
    (1.0456, 0.0228, 1.0)
    """

    payload_bytes: float = 1.0
    frame_bytes: float = 1.0
    ack_bytes: float = 0.0
    payloads_per_ack: float = 1.0
    burst_bytes: float = 0.0
    base_s: float = 0.0
    hop_s: float = 0.0
    message_s: float = 0.0
    copy_s_per_byte: float = 0.0
    cores: int = 0
    turn_s: float = 0.0
    buffered: bool = False
    pieces: int = 16
    window: int = 2

    def __post_init__(self) -> None:
        least = {"payload_bytes": 1e-9, "frame_bytes": 1e-9, "payloads_per_ack": 1e-9, "pieces": 1, "window": 1}
        faults = [
            Fault(f"wire.{each.name}", value, "is too small", f"give at least {least.get(each.name, 0)}")
            for each in fields(self)
            if not (value := getattr(self, each.name)) >= least.get(each.name, 0)
        ]
        if faults:
            raise SpecError(faults)

    @property
    def framing(self) -> float:
        """Bytes on the wire for a byte of payload: frame_bytes / payload_bytes."""
        return self.frame_bytes / self.payload_bytes

    @property
    def acknowledging(self) -> float:
        """Bytes on the way back for a byte of payload: ack_bytes / (payloads_per_ack · payload_bytes)."""
        return self.ack_bytes / (self.payloads_per_ack * self.payload_bytes)

    def crowd(self, ranks: int) -> float:
        """Return how many ranks share a core: ranks / cores, 1 where each has its own."""
        return ranks / self.cores if self.cores else 1.0

    def latency_s(self, ranks: int) -> float:
        """Return the software latency of a message before a core handles it, links apart: base_s + turn_s · crowd."""
        return self.base_s + self.turn_s * self.crowd(ranks)
