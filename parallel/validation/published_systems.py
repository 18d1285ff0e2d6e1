"""The systems of published collective benchmarks: what their names say of the wiring, written out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Site:
    """A published system.

    Attributes
    ----------
    accelerator : name in the catalogue
    domain : accelerators of an NVLink (or xGMI) domain
    network : link between domains; empty where the rows stay inside one
    network_Bps : bytes/s for each accelerator and direction between domains
    adds : whether the switches inside a domain added; None where they did as they can
    network_adds : whether the switches between domains added (SHARP)
    """

    accelerator: str
    domain: int = 8
    network: str = ""
    network_Bps: float = 0.0
    adds: bool | None = None
    network_adds: bool = False


SITES: Final[Mapping[str, Site]] = {
    "2x8 H20 NDR NVLSTree": Site("h20", 8, "ib-ndr", 50e9),
    "6 nodes 8xH100 8x400G RoCE": Site("h100-sxm", 8, "roce-400", 50e9),
    "8xA100-40 4xHDR": Site("a100-sxm-40", 8, "ib-hdr", 12.5e9),
    "8xB200 p6-b200 NVLink5 NVLS off (ring)": Site("b200-sxm", adds=False),
    "8xB200 p6-b200 NVLink5 default algo": Site("b200-sxm"),
    "8xH100 NVLS": Site("h100-sxm"),
    "8xH100 NVLS off": Site("h100-sxm", adds=False),
    "8xH200 NVLS": Site("h200-sxm"),
    "8xH200 NVLink4 NVLS": Site("h200-sxm"),
    "8xH200 NVLink4 ring": Site("h200-sxm", adds=False),
    "8xH200 node NVLink4 NVLS off (ring)": Site("h200-sxm", adds=False),
    "8xH200 node NVLink4 default algo": Site("h200-sxm"),
    "8xH800 NVLS": Site("h800-sxm"),
    "8xMI300X xGMI RCCL": Site("mi300x"),
    "AWS p4de 8xA100-80 EFA 4x100G": Site("a100-sxm-80", 8, "efa-1", 6.25e9),
    "AWS p5 8xH100 EFAv2 32x100G": Site("h100-sxm", 8, "efa-2", 50e9),
    "AWS p5en 8xH200 EFAv3 16x200G": Site("h200-sxm", 8, "efa-3", 50e9),
    "AWS p6-b200 8xB200 EFAv4 8x400G": Site("b200-sxm", 8, "efa-4", 50e9),
    "Azure ND A100 v4 8xA100 NVLink3": Site("a100-sxm-80"),
    "Azure ND H100 v5 8xH100 NVLink4 NVLS": Site("h100-sxm"),
    "Azure ND H200 v5 8xH200 NVLink4 NVLS": Site("h200-sxm"),
    "CoreWeave GB200 NVL72 1 rack": Site("gb200", 72),
    "CoreWeave GB200 NVL72 20 racks IB": Site("gb200", 72, "ib-ndr", 50e9),
    "CoreWeave H100 NDR IB SHARP": Site("h100-sxm", 8, "ib-ndr", 50e9, network_adds=True),
    "DGX A100 8xHDR": Site("a100-sxm-80", 8, "ib-hdr", 25e9),
    "GB200 NVL4 x3 racks IB ring NVLS off": Site("gb200", 4, "ib-ndr", 50e9, adds=False),
    "GB200 NVL8 x3 racks IB ring NVLS off": Site("gb200", 8, "ib-ndr", 50e9, adds=False),
    "GTC24/25 slide 8xH100 SHARP": Site("h100-sxm"),
    "GTC24/25 slide 8xH100 no SHARP": Site("h100-sxm", adds=False),
    "GTC25 S72583 slide NVL72 SHARP": Site("gb200", 72),
    "OCI BM.GPU.B4.8 8xA100-40 RoCE 16x100G": Site("a100-sxm-40", 8, "roce-400", 25e9),
    "OCI BM.GPU.MI300X.8 RoCE 8x400G RCCL": Site("mi300x", 8, "roce-400", 50e9),
}
"""System -> its wiring. A p4de has 4 x 100 Gb/s for eight accelerators, the others 400 Gb/s for each or as named."""

FORCED: Final = ("GB200 NVL4 x3 racks IB tree NVLS off", "GB200 NVL8 x3 racks IB tree NVLS off")
"""Systems whose rows force an algorithm that NCCL would not choose."""
