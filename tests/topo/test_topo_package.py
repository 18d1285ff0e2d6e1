"""The package's front: cheap to import, complete."""

import subprocess
import sys

import topo


def test_every_public_name_resolves() -> None:
    for name in topo.__all__:
        assert getattr(topo, name) is not None
    assert set(topo.__all__) == set(dir(topo))


def test_import_and_building_a_blueprint_leave_networkx_alone() -> None:
    code = (
        "import sys, topo, topo.errors;"
        "topo.cluster_blueprint('x', 2, topo.ScaleUp(8, 1e9, 1e-6, 'a'), topo.ScaleOut(1e9, 'b'));"
        "sys.exit('networkx' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(topo, "no_such_thing")
