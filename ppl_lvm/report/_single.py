"""The report of one fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ppl_lvm.amortised import is_amortised
from ppl_lvm.comparison import compare
from ppl_lvm.report import _replace, write_report
from ppl_lvm.result import Fit


def write_fit_report(
    fit: Fit,
    path: str | Path,
    *,
    data: Any = None,
    labels: Any = None,
    image_shape: Sequence[int] | None = None,
) -> Path:
    """Write one fit as a self-contained page; returns its path. Folders on the way are made.

    A fit with encoder and decoder has the pictures of ``ppl_lvm.plots`` that are of these, at ``data`` (None:
    its own). Of another fit it is the report of a comparison that has no other.

    Raises
    ------
    ValueError
        If ``path`` is a folder; for ``data``, ``labels`` or ``image_shape`` with a fit that has no encoder.
    """
    if not is_amortised(fit):
        if any(v is not None for v in (data, labels, image_shape)):
            raise ValueError(
                "data, labels, image_shape: are for fits with encoder and decoder, and "
                f"{fit.model.describe()} has none; leave them out."
            )
        return write_report(compare({type(fit.engine).__name__: fit}), path)
    import jinja2

    from ppl_lvm.report._vae_page import shown_of, vae_page_of

    target = Path(path)
    if target.is_dir():
        raise ValueError(f"path: {target} is a folder; give the name of a file, such as fit.html.")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shape = None if image_shape is None else tuple(image_shape)
    text = environment.get_template("vae.html").render(vae_page_of(shown_of(fit, data, labels, shape)))
    target.parent.mkdir(parents=True, exist_ok=True)
    _replace(target, text)
    return target


__all__ = ["write_fit_report"]
