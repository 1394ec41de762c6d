"""Where our checkpoints can be downloaded: the one place that holds an address."""

from __future__ import annotations

HOSTS: tuple[str, ...] = ()
"""Addresses under which NAME.safetensors lies, tried in turn; none yet: nobody serves them."""
