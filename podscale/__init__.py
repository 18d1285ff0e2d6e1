"""podscale: the front door. Command line, tables, drawings and the report; every number comes from the floors below.

`podscale.cli.main` is the command, `podscale.report.write` turns a comparison (the document of ``compare --json``) into
one self-contained HTML file, and `podscale.draw.wiring` draws a cluster's tiers as SVG.
"""

__version__ = "0.1.0"
