"""What is asked of a cluster: one training step, one prefill, one decode; every field with its unit and default."""

from dataclasses import dataclass

from topo.errors import Fault, SpecError


def _positive(record: object, *names: str) -> list[Fault]:
    faults = []
    for name in names:
        value = getattr(record, name)
        if not value > 0:
            faults.append(Fault(name, value, "must be positive", "give a number above zero"))
    return faults


@dataclass(frozen=True, slots=True)
class TrainWorkload:
    """One optimizer step of pre-training.

    Attributes
    ----------
    sequence : tokens per sequence
    global_batch : sequences per step
    precision : recipe name, see `parallel.precision.RECIPES`
    causal : share of the attention square that is computed (0.5: a fused kernel skips the masked half)
    fused_attention : flash attention; otherwise scores go through memory, in full
    tp_overlap : whether backward hides tensor-parallel reductions behind weight gradients (Megatron-Core does)
    gradient_bytes : bytes per gradient value that is kept and reduced (FP32 accumulation: 4)
    imbalance : rows of the busiest expert rank over the mean (1: balanced by the router's loss)
    reserve_bytes : memory the driver, the communication library and the allocator keep for themselves
    """

    sequence: int = 4096
    global_batch: int = 18432
    precision: str = "fp8"
    causal: float = 0.5
    fused_attention: bool = True
    tp_overlap: bool = True
    gradient_bytes: float = 4.0
    imbalance: float = 1.0
    reserve_bytes: float = 4 * 2**30

    def __post_init__(self) -> None:
        """Refuse what cannot be a step."""
        faults = _positive(self, "sequence", "global_batch", "causal", "gradient_bytes", "imbalance")
        if faults:
            raise SpecError(faults)

    @property
    def tokens(self) -> float:
        """Tokens per step."""
        return float(self.sequence * self.global_batch)


@dataclass(frozen=True, slots=True)
class ServeWorkload:
    """Requests of one shape, served as separate prefill and decode pools.

    Attributes
    ----------
    isl, osl : input and output tokens per request
    tpot_s, ttft_s : limits on the time per output token and on the time to the first one
    precision : recipe name
    kv_bytes : bytes per cached value
    exchange : the kernels of the expert exchange, a key of `parallel.exchange.EXCHANGES`, or `auto`
    imbalance : rows of the busiest expert rank over the mean (1: balanced by redundant experts)
    reserve_bytes : memory kept by driver, libraries, graphs and allocator
    """

    isl: int = 4096
    osl: int = 1024
    tpot_s: float = 0.05
    ttft_s: float = 2.0
    precision: str = "fp8"
    kv_bytes: float = 2.0
    exchange: str = "auto"
    imbalance: float = 1.0
    reserve_bytes: float = 8 * 2**30

    def __post_init__(self) -> None:
        """Refuse what cannot be served."""
        faults = _positive(self, "isl", "osl", "tpot_s", "ttft_s", "kv_bytes", "imbalance")
        if faults:
            raise SpecError(faults)

    @property
    def mean_context(self) -> float:
        """Cached tokens per sequence, averaged over its life: the prompt and half of the answer."""
        return self.isl + self.osl / 2
