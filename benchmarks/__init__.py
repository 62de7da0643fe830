"""Measurements, compared with upstream where it does the same; `make bench` runs all of them."""
