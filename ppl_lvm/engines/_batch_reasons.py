"""Why SVI cannot take the rows of a problem in batches, or share them among processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ppl_lvm.core import Problem
from ppl_lvm.engines._rows import first_rows
from ppl_lvm.engines._sources import streamed
from ppl_lvm.engines.objectives import Renyi
from ppl_lvm.families import is_amortized

if TYPE_CHECKING:
    from ppl_lvm.engines.svi import SVI


def batches_reason(engine: SVI, problem: Problem) -> str | None:
    """Why rows cannot be taken in batches, or shared by processes, as asked; None if they can."""
    rows = first_rows(engine, problem).num_data
    size = engine.batch_size or (problem.num_data if engine.distributed else None)
    field = "batch_size" if engine.batch_size else "distributed"
    if engine.num_epochs is not None and engine.batch_size is None:
        return "num_epochs needs batch_size (or give num_steps)"
    if size is None:
        return None
    n = problem.num_data
    if n is None:
        return f"{field} needs a data plate: put the observed sites in a pyro.plate"
    if size > n:
        return f"batch_size is {size}, but there are only {n} rows"
    if not problem.batched and problem.model.num_data(problem.data) is not None:
        return (
            f"{problem.model.describe()} uses sufficient statistics, so that a step costs the same for "
            f"any number of rows; leave out {field}"
        )
    if not problem.batched:
        return f"{field} finds no argument along the data plate; name them in Model(batched=(...))"
    if "stream" in problem.notes and rows != size:
        return f"batch_size is {size}, and the stream's first batch has {rows} rows; make them equal"
    if "stream" in problem.notes and engine.checkpoint is not None:
        return (
            "checkpoint needs data with random access, and a stream cannot be taken up in its middle; "
            "give an array (a memory-mapped one will do), or leave out checkpoint"
        )
    if streamed(problem) and engine.guide in ("delta", "laplace"):
        return f"guide={engine.guide!r} ends in a search on all data, which have to be in memory for it"
    local = [s.name for s in problem.latents(discrete=False) if s.local]
    outside = [s.name for s in problem.latents() if not s.local]
    shared = [s.name for s in problem.latents(discrete=True) if not s.local]
    if shared:
        return (
            f"discrete sites {shared} lie outside the data plate, so their sum over values does not "
            f"split over batches; leave out {field}"
        )
    own_guide = engine.guide if engine.guide is not None else problem.model.pyro.guide
    if local and not callable(own_guide) and not is_amortized(own_guide):
        return (
            f"sites {local} have a value per datum, and this guide family would need new parameters for "
            "every batch; use guide='amortized', or an amortised guide of your own (a function of the "
            f"batch), or leave out {field}"
        )
    if isinstance(engine.objective, Renyi) and outside:
        return (
            f"the Renyi objective under minibatches is no bound while latents outside the data plate "
            f"({outside}) share the weights; use objective=ELBO(), or leave out {field}"
        )
    return None
