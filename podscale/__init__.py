"""podscale: the front door. Command line, tables, drawings and the report; every number comes from the floors below.

`podscale.cli.main` is the command. `podscale.verbs` holds the same verbs as Python functions (`podscale.compare(domains=(8,
72))`), `podscale.report.write` turns a comparison into one self-contained HTML file, and `podscale.draw.wiring` draws a
cluster's tiers as SVG.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from podscale.verbs import Answer, claim, claims, collective, compare, rl, serve, sweep, train, validate

__version__ = "0.1.0"
__all__ = ["Answer", "claim", "claims", "collective", "compare", "rl", "serve", "sweep", "train", "validate"]
_VERBS: Final = "podscale.verbs"


def __getattr__(name: str) -> Any:
    """Import the verbs when one of them is first used: the command line does without."""
    if name not in __all__:
        raise AttributeError(f"module 'podscale' has no attribute {name!r}")
    return getattr(import_module(_VERBS), name)
