"""Measurements, side by side with upstream where it does the same; `make bench` runs them all."""
