"""Measured matrix products: their schema, their names, and what a benchmark's warm cache does to them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters import products
from clusters.catalogue import accelerator
from clusters.kernels import gemm_s, kernel
from clusters.products import FORMATS, price, read_products, resident
from topo.errors import SpecError

HEADER = "system,dtype,m,n,k,latency_us"
sizes = st.integers(1, 60_000)


def rows(**columns):
    return {key: np.array(values) for key, values in columns.items()}


def test_every_row_of_the_shipped_table_has_an_accelerator_and_a_precision():
    table = read_products()
    named = products.classify(table)
    assert len(named["precision"]) == 19512 + 324
    assert all(named["accelerator"])
    assert all(named["precision"])
    assert sum(mask.sum() for mask in products.groups(table).values()) == 19512 + 324


def test_an_own_file_may_name_things_as_the_catalogue_does(tmp_path):
    file = tmp_path / "own.csv"
    file.write_text(f"{HEADER}\nH100,fp16,1,2,3,4\nh100_sxm,bfloat16,1,2,3,4\nnew-part,fp8,1,2,3,4\n", "utf-8")
    table = read_products(file)
    assert {key: mask.tolist() for key, mask in products.groups(table).items()} == {
        ("h100-sxm", "bf16"): [True, True, False]
    }
    assert products.row_ids(table)[0] == "H100 fp16 1x2x3"


def test_a_price_is_the_kernel_model_with_the_figures_of_the_catalogue():
    part, model = accelerator("h100"), kernel("h100-sxm", "fp8")
    table = rows(m=[64.0], n=[4096.0], k=[7168.0])
    expected = gemm_s(64, 4096, 7168, model, part.peak_flops["fp8"], part.hbm_Bps, 1.0, 1.0, 2.0)
    assert price(table, model, part, "fp8") == pytest.approx(expected, rel=1e-12)


def test_weights_in_the_cache_cost_as_much_less_as_the_cache_is_faster():
    part = accelerator("l40s")
    model = replace(kernel("l40s"), launch_s=0.0, hbm_ramp_s=0.0, hbm_efficiency=1.0, norm=60.0, wave=0.0)
    shape = {"m": [1.0], "n": [4096.0], "k": [4096.0]}  # three copies of 32 MiB fill the 96 MiB
    cold, warm = (float(price(rows(**shape, software=[word]), model, part, "bf16")[0]) for word in ("mine", "trtllm"))
    assert cold / warm == pytest.approx(4.0, rel=0.01)


def test_a_part_whose_cache_is_no_faster_prices_warm_and_cold_alike():
    part, model = accelerator("h100"), kernel("h100-sxm")
    shape = {"m": [1.0], "n": [1024.0], "k": [1024.0]}
    cold, warm = (price(rows(**shape, software=[word]), model, part, "bf16") for word in ("mine", "trtllm"))
    assert cold == warm


@settings(max_examples=50, deadline=None)
@given(m=sizes, n=sizes, k=sizes, precision=st.sampled_from(sorted(FORMATS)))
def test_the_share_in_the_cache_is_a_share_and_falls_with_the_tokens(m, n, k, precision):
    model = kernel("l40s", precision)
    share, more = resident([m, 2 * m], n, k, model, FORMATS[precision])
    assert 0.0 <= more <= share <= 1.0


def test_a_part_without_published_figures_has_no_price():
    part = replace(accelerator("h100"), peak_flops={})
    with pytest.raises(SpecError, match="PODSCALE_CATALOGUE"):
        price(rows(m=[1.0], n=[1.0], k=[1.0]), kernel("h100-sxm"), part, "bf16")


def test_activations_that_came_cast_cost_no_cast():
    part, model = accelerator("mi300x"), kernel("mi300x", "fp8-block")
    shape = {"m": [512.0], "n": [4096.0], "k": [7168.0]}
    ready, whole = (float(price(rows(**shape, software=[word]), model, part, "fp8-block")[0]) for word in ("aiter", ""))
    assert whole - ready == pytest.approx(3.0 * 512 * 7168 / part.hbm_Bps + model.launch_s)


def test_no_product_of_aiter_streams_faster_than_the_memory():
    table = read_products()
    ours = products.select(table, table["software"] == "aiter")
    for (name, precision), mask in products.groups(ours).items():
        held = products.select(ours, mask)
        streamed = FORMATS[precision].bytes_b * held["n"] * held["k"] / (held["latency_us"] * 1e-6)
        assert streamed.max() < accelerator(name).hbm_Bps, (name, precision)
