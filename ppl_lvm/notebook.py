"""What notebooks show of fits, comparisons and ladders: small tables, escaped, in its own colours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from ppl_lvm.comparison import Comparison
    from ppl_lvm.evidence import EvidenceLadder
    from ppl_lvm.result import Fit
    from ppl_lvm.structure import ModelGraph

MOST_ROWS = 30
_SIGNS = {"means_and_spreads": "✓", "means_only": "◐", "do_not_trust": "✗", "inconclusive": "?"}


def fit_html(fit: Fit) -> str:
    """What a fit is, how it ended, and the sizes of its draws or its point."""
    title = f"Fit of <code>{escape(fit.model.describe())}</code> by {_engine(fit)}"
    rows = [("status", escape(str(fit.status)))]
    if fit.draws is not None:
        kind = escape(str(fit.draws.attrs.get("draws", "draws")))
        rows.append(("posterior", f"{fit.draws.sizes['chain']} × {fit.draws.sizes['draw']} ({kind})"))
    if fit.log_likelihood is not None:
        rows.append(("point", f"log likelihood {fit.log_likelihood:.3f} nats"))
    if fit.evidence is not None:
        rows.append(("evidence", escape(str(fit.evidence))))
    if "wall_seconds" in fit.meta:
        rows.append(("time", f"{fit.meta['wall_seconds']:.2f} s, seed {escape(str(fit.meta.get('seed')))}"))
    return _block(
        title, _pairs(rows) + _details("sites", _grid(("site", "dimensions", "shape"), _sites(fit)))
    )


def comparison_html(comparison: Comparison) -> str:
    """Verdicts, then the overview."""
    against = f", against <b>{escape(comparison.reference)}</b>" if comparison.reference else ""
    model = next(iter(comparison.fits.values())).model.describe()
    title = f"{len(comparison.fits)} fits of <code>{escape(model)}</code>{against}"
    verdicts = [
        (
            escape(name),
            f"{_SIGNS.get(v.level, '')} <b>{escape(v.level.replace('_', ' '))}</b>: {escape(v.sentence)}",
        )
        for name, v in comparison.verdicts.items()
    ]
    return _block(title, _pairs(verdicts) + _details("overview", frame_html(comparison.overview), shown=True))


def ladder_html(ladder: EvidenceLadder) -> str:
    """The rungs with kinds and errors."""
    title = f"Log evidence of <code>{escape(ladder.model)}</code>, nats"
    return _block(title, frame_html(ladder.table))


def graph_html(graph: ModelGraph) -> str:
    """The generative story, a line for each site."""
    rows = [(escape(graph.where(n)), f"<code>{escape(n.sentence)}</code>") for n in graph.nodes]
    return _block(f"<code>{escape(graph.model)}</code>", _grid(("for each", "site"), rows))


def frame_html(frame: pd.DataFrame) -> str:
    """A DataFrame's first rows with three digits, everything escaped; a dash for what is missing."""
    head = [str(frame.index.name or ""), *map(str, frame.columns)]
    rows = [
        (escape(str(name)), *(escape(_cell(v)) for v in row))
        for name, row in zip(
            frame.index[:MOST_ROWS], frame.head(MOST_ROWS).itertuples(index=False), strict=True
        )
    ]
    more = f"<p>and {len(frame) - MOST_ROWS} more rows</p>" if len(frame) > MOST_ROWS else ""
    return _grid(map(escape, head), rows) + more


def _engine(fit: Fit) -> str:
    return f"<b>{escape(type(fit.engine).__name__)}</b> on {escape(fit.backend)}"


def _sites(fit: Fit) -> list[tuple[str, str, str]]:
    if fit.draws is not None:
        return [
            (escape(str(k)), escape(", ".join(map(str, v.dims[2:]))) or "–", _shape(v.shape[2:]))
            for k, v in fit.draws.data_vars.items()
        ]
    shapes: Mapping[str, Any] = {k: getattr(v, "shape", ()) for k, v in fit.params.items()}
    return [(escape(str(k)), "–", _shape(v)) for k, v in shapes.items()]


def _shape(shape: Iterable[int]) -> str:
    return " × ".join(map(str, shape)) or "scalar"


def _cell(value: Any) -> str:
    if value is None or str(value) in ("nan", "<NA>"):
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _block(title: str, body: str) -> str:
    return f"<div><p>{title}</p>{body}</div>"


def _pairs(rows: Iterable[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><th style='text-align:left'>{k}</th>{_td(v)}</tr>" for k, v in rows)
    return f"<table>{cells}</table>"


def _grid(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    top = "".join(f"<th style='text-align:left'>{h}</th>" for h in head)
    body = "".join(f"<tr>{''.join(_td(v) for v in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _td(value: str) -> str:
    return f"<td style='text-align:left'>{value}</td>"


def _details(summary: str, body: str, *, shown: bool = False) -> str:
    return f"<details{' open' if shown else ''}><summary>{summary}</summary>{body}</details>"


__all__ = ["comparison_html", "fit_html", "frame_html", "graph_html", "ladder_html"]
