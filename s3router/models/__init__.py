"""Frozen speech encoders of every family and format, and the heads on them."""
