"""``engines``: which of them take a model with these data."""

from __future__ import annotations

from ppl_lvm.command_line._arguments import ENGINES, Options
from ppl_lvm.command_line._inputs import make_engine, make_model, read_data
from ppl_lvm.command_line._words import BadInput, one_line, result


def run_engines(options: Options) -> int:
    """A line for each engine: its name, and "takes it" or the reason; returns the exit code."""
    from ppl_lvm.fitting import prepare

    data, model = read_data(options.data, options), make_model(options)
    engines = {name: make_engine(name, options) for name in ENGINES}
    try:
        problem = prepare(model, data)
        reasons = {name: engine.check(problem) for name, engine in engines.items()}
    except (TypeError, ValueError) as error:
        raise BadInput(f"{options.data}: {one_line(error)}") from None
    result(problem.model.describe())
    for name, reason in reasons.items():
        backend = engines[name].backend_for(problem)
        result(f"  {name:<5} {'takes it, on ' + backend if reason is None else 'no: ' + reason}")
    return 0


__all__ = ["run_engines"]
