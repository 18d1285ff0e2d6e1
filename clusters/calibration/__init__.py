"""Calibration: the committed scripts that fit the constants of `clusters/data` to the measurements that ship.

`python -m clusters.calibration.gemm` writes `data/kernels.yaml`, `python -m clusters.calibration.links` writes
`data/tunings.yaml`, `python -m clusters.calibration.exchanges` writes `data/exchanges.yaml`. All state their residuals
beside the constants, computed with the constants as the file has them.
"""
