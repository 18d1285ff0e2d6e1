"""A comparison as ``compare --json`` prints it, with invented figures: the front door adds nothing to them."""

import copy

import pytest

PHASES = ("train", "prefill", "decode")
SPLITS = {
    ("train", 8): dict(
        tp=1, cp=1, ep=64, etp=1, pp=16, vpp=1, dp=288, micro_batch=1, recompute="none", schedule="1f1b"
    ),
    ("train", 72): dict(tp=1, cp=1, ep=64, etp=1, pp=8, vpp=2, dp=576, micro_batch=1, recompute="selective"),
    ("train", 576): dict(tp=1, cp=1, ep=256, etp=1, pp=2, vpp=1, dp=2304, micro_batch=2, recompute="selective"),
    ("prefill", 8): dict(tp=1, pp=1, ep=32, dp=144, batch=8),
    ("prefill", 72): dict(tp=1, pp=1, ep=64, dp=72, batch=16),
    ("prefill", 576): dict(tp=1, pp=1, ep=64, dp=72, batch=16),
    ("decode", 8): dict(tp=1, pp=1, ep=64, dp=72, batch=64),
    ("decode", 72): dict(tp=1, pp=1, ep=72, dp=64, batch=192),
    ("decode", 576): dict(tp=1, pp=1, ep=288, dp=16, batch=256),
}
TERMS = {
    "train": {
        "experts": 2.1, "attention": 1.3, "dispatch": 1.9, "combine": 1.6, "gradient_all_reduce": 0.35,
        "pipeline_bubble": 0.6, "pipeline_send": 0.1, "optimizer": 0.08, "lm_head": 0.15, "launch": 0.05,
    },
    "prefill": {
        "experts": 0.12, "attention": 0.21, "dispatch": 0.15, "combine": 0.11, "lm_head": 0.003, "launch": 0.006,
        "router": 0.004,
    },
    "decode": {
        "experts": 0.0061, "attention": 0.0048, "kv_cache": 0.0085, "dispatch": 0.0102, "combine": 0.0094,
        "launch": 0.0028, "router": 0.0003, "sampling": 0.0001, "lm_head": 0.0006,
    },
}  # fmt: skip
TALK = {8: 1.0, 72: 0.22, 576: 0.2}
RATES = {"train": (620.0, 1090.0, 1175.0), "prefill": (8900.0, 13200.0, 13400.0), "decode": (1480.0, 3350.0, 3610.0)}
STOPS = {
    8: "Seven of eight expert messages leave the domain: the 50 GB/s NIC carries what 900 GB/s could.",
    72: "Reading the KV cache: 8 TB/s of HBM is used to 81 %.",
    576: "HBM capacity: the next larger batch needs 12 GB more than a GPU has.",
}


def _row(domain, rank, phase):
    factor = TALK[domain]
    talking = ("dispatch", "combine", "gradient_all_reduce", "pipeline_send")
    terms = {name: time * (factor if name in talking else 1.0) for name, time in TERMS[phase].items()}
    step = sum(terms.values())
    return {
        "domain": domain,
        "phase": phase,
        "strategy": SPLITS[phase, domain],
        "gpus_used": 4608,
        "gpus_idle": 0,
        "tokens_per_s_per_gpu": RATES[phase][rank],
        "step_time_s": step,
        "ttft_s": step if phase == "prefill" else None,
        "tpot_s": step if phase == "decode" else None,
        "terms": terms,
        "busy": {name: time * (1.4 if name in talking else 1.0) for name, time in terms.items()},
        "memory_bytes": {"weights": 4.2e10, "kv_cache": 9.1e10, "activations": 1.2e10, "buffers": 4e9}
        if phase != "train"
        else {"weights": 1.1e10, "gradients": 2.2e10, "optimizer": 1.4e10, "activations": 7.5e10},
        "bottleneck": "dispatch" if domain == 8 else "kv_cache",
        "stops": STOPS[domain],
        "interval": [0.8 * step, 1.25 * step] if domain == 72 else None,
        "interval_note": "from residuals at EP 8 to 72"
        if domain == 72
        else "EP64 over NICs: no measurement to lean on",
        "infeasible": None,
        "warnings": ["EP 288: beyond the 72 measured"] if domain == 576 and phase == "decode" else [],
    }


def _tier(name, plane, size, gbytes, micros, hops, link, reduces=False):
    return {
        "name": name, "kind": "switch", "plane": plane, "size": size, "blocks": 4608 // size,
        "bandwidth_Bps": gbytes * 1e9, "latency_s": micros * 1e-6, "hops": hops, "in_network_reduction": reduces,
        "link": link,
    }  # fmt: skip


OUT = [
    _tier("leaf", "scale-out", 1152, 50, 3.1, 4, "infiniband-xdr"),
    _tier("spine", "scale-out", 4608, 50, 4.4, 6, "infiniband-xdr"),
]
UP = {
    8: [_tier("domain", "scale-up", 8, 900, 0.7, 2, "nvlink5", True)],
    72: [_tier("domain", "scale-up", 72, 900, 0.7, 2, "nvlink5", True)],
    576: [
        _tier("pod", "scale-up", 72, 900, 0.7, 2, "nvlink5", True),
        _tier("domain", "scale-up", 576, 900, 1.4, 4, "nvlink5", True),
    ],
}
LEAF_SPINE = {8: OUT, 72: OUT, 576: OUT[1:]}


def _document():
    domains = (8, 72, 576)
    return {
        "question": "What would 4,608 GB200 do for DeepSeek-V3, wired as NVLink domains of 8, 72 or 576?",
        "workload": {
            "model": "deepseek-v3", "accelerator": "gb200", "gpus": 4608, "nic_Bps": 5e10, "oversubscription": 1.0,
            "isl": 4096, "osl": 1024, "tpot_ms": 50.0, "ttft_ms": 2000.0, "precision": "fp8", "sequence": 4096,
            "global_batch": 18432, "hbm_bytes": 1.86e11,
        },
        "rows": [_row(domain, rank, phase) for phase in PHASES for rank, domain in enumerate(domains)],
        "wirings": [
            {
                "domain": domain,
                "tiers": UP[domain] + LEAF_SPINE[domain],
                "parts": {"gb200": 4608, "nvswitch": 1152, "connectx-8": 4608, "quantum-x800 switch": 192},
            }
            for domain in domains
        ],
        "frontiers": [
            {
                "domain": domain,
                "phase": "decode",
                "points": [
                    {
                        "tokens_per_s_per_user": user,
                        "tokens_per_s_per_gpu": RATES["decode"][rank] * 1.3 / (1 + (user / (40 + 25 * rank)) ** 2),
                        "strategy": SPLITS["decode", domain],
                        "tpot_s": 1 / user,
                    }
                    for user in (10, 15, 20, 30, 40, 60, 80, 100, 120)
                ],
            }
            for rank, domain in enumerate(domains)
        ],
        "exchange": [
            {"domain": domain, "what": "EP64 dispatch + combine, 128 tokens per GPU", "seconds": time, "ratio": ratio}
            for domain, time, ratio in ((8, 6.1e-4, 1.0), (72, 9.2e-5, 6.6), (576, 9.4e-5, 6.5))
        ],
        "answer": "Going from 8 to 72 GPUs per NVLink domain makes decode 2.26 times faster and training 1.76 times. "
        "Going on to 576 adds 8 %: the exchange no longer stops it, reading the KV cache does.",
        "assumptions": [
            {"name": "HBM bandwidth", "value": "8 TB/s", "source": "NVIDIA GB200 NVL72 data sheet"},
            {"name": "expert load", "value": "balanced <even>", "source": "DeepSeek-V3 report, §3.4"},
        ],
        "search": {"points": 184320, "feasible": 20144, "seconds": 3.2, "executor": "serial"},
        "constants": {"kernels": {"gb200 fp8": 8}, "links": 4},
    }  # fmt: skip


_DOCUMENT = _document()


@pytest.fixture
def document():
    """A fresh comparison that a test may change."""
    return copy.deepcopy(_DOCUMENT)
