"""What the examples share: their options, where the data lie, how pictures are written."""

from __future__ import annotations

import argparse
import io
import os
from pathlib import Path
from typing import Any

# Threads of torch beside other work spin: one is faster for data this small. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

LARGE = 100_000
"""Bytes of a picture."""


def read_options(description: str | None) -> argparse.Namespace:
    """``--out``, ``--quick`` and ``--bundled``; the first line of the script's docstring describes it."""
    parser = argparse.ArgumentParser(description=(description or "").strip().split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("out/examples"), help="folder for the pictures")
    parser.add_argument("--quick", action="store_true", help="a short run, to see how it works")
    parser.add_argument("--bundled", action="store_true", help="use data that come with scikit-learn")
    return parser.parse_args()


def save(figure: Any, folder: Path, name: str) -> None:
    """Write a picture as a PNG, a large one in a palette of 256 colours, and say where."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=100, pil_kwargs={"optimize": True})
    path.write_bytes(drawn.getvalue())
    if path.stat().st_size > LARGE:
        Image.open(drawn).convert("RGB").quantize(256).save(path, optimize=True)
    print(f"wrote {path}", flush=True)


def show(title: str, table: Any, decimals: int = 2) -> None:
    """A table with a title; dashes where there is no number."""
    text = table.to_string(float_format=lambda v: f"{v:.{decimals}f}", na_rep="-")
    print(f"\n{title}\n{text}", flush=True)
