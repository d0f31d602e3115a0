"""What a calibration gives: ranks, a table, findings, pictures, a file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppl_lvm.calibration import _uniform
from ppl_lvm.diagnostics import Finding

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

FORMAT = 1
_SHOWN = ("bias", "bias_error", "spread", "spread_error", "p_chi_square", "p_ecdf", "p_adjusted", "finding")


@dataclass(frozen=True, eq=False, repr=False)
class Calibration:
    """The result of :func:`ppl_lvm.calibrate`.

    Attributes
    ----------
    simulations
        A Dataset of the simulations that succeeded. By (simulation, quantity): ``rank``, the number of
        posterior draws below the true value, 0 to L, ties broken at random; ``pit``, the rank on (0, 1),
        (rank + v) / (L + 1) with v uniform; ``truth``, the true value in the units of the site. By
        simulation: ``num_draws`` (L), ``ess``, ``seconds``, ``status``.
    table
        A row for each quantity. ``bias`` = 1/2 - mean(pit), above 0 where the posterior is too high, and
        ``spread`` = the root mean square of pit - 1/2 relative to a uniform one's, above 1 where the
        posterior is too narrow, each with its standard error under uniformity; ``p_chi_square``, ``p_ecdf``,
        ``p_bias``, ``p_spread``; ``p_value``, which combines them, ``p_adjusted`` for the number of
        quantities (Holm); and ``finding``: "too narrow", "too wide", "too high", "too low",
        "not uniform", or nothing.
    findings
        What is wrong in sentences: quantities that are off, simulations that failed, fits of few draws.
    failures
        Messages of the simulations that failed, by number.
    kind, false_alarm, num_draws, about
        "sbc" or "vsbc"; the probability that any quantity is found off where nothing is; L; model and engine.
    """

    simulations: xr.Dataset
    table: pd.DataFrame
    findings: tuple[Finding, ...]
    failures: Mapping[int, str]
    kind: str
    false_alarm: float
    num_draws: int
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether nothing was found off beyond chance, and at most 5 % of the simulations failed."""
        return not any(f.level == "error" for f in self.findings)

    @property
    def ranks(self) -> xr.DataArray:
        """Ranks of the true values, 0 to L, (simulation, quantity)."""
        return self.simulations["rank"]

    def bands(self, probability: float = 0.95) -> _uniform.Bands:
        """Simultaneous bands of the ECDF of ``pit`` (:mod:`ppl_lvm.calibration._uniform`)."""
        return _uniform.ecdf_bands(self.simulations.sizes["simulation"], probability)

    def histogram(self, quantity: str, probability: float = 0.95) -> tuple[Any, tuple[float, float]]:
        """Counts of a quantity's ``pit`` in equal bins, and the band that all of them lie in."""
        u = self.simulations["pit"].sel(quantity=quantity).values
        return _uniform.counts_in_bins(u), _uniform.histogram_band(len(u), probability)

    def plot(self, **settings: Any) -> Any:
        """Rank histograms and ECDF differences (:func:`ppl_lvm.plots.plot_calibration`), a Figure."""
        from ppl_lvm.plots import plot_calibration

        return plot_calibration(self, **settings)

    def save(self, path: str | Path) -> Path:
        """Write everything to one netCDF file; :meth:`load` reads it."""
        target = Path(path)
        if target.is_dir():
            raise ValueError(f"path: {target} is a folder; give the name of a file, such as calibration.nc.")
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        record = {k: plain[k] for k in ("kind", "false_alarm", "num_draws")} | {"about": dict(self.about)}
        record |= {"format": FORMAT, "failures": {str(k): v for k, v in self.failures.items()}}
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(f".{target.name}.part")
        self.simulations.assign_attrs(calibration=json.dumps(record)).to_netcdf(fresh, engine="h5netcdf")
        fresh.replace(target)
        return target

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """A calibration that :meth:`save` wrote; the table is computed anew from its ranks.

        Raises
        ------
        ValueError
            If there is no such file, or it holds something else.
        """
        import xarray as xr

        if not Path(path).is_file():
            raise ValueError(f"path: no file {path}; give the file that Calibration.save wrote.")
        try:
            with xr.open_dataset(path, engine="h5netcdf") as opened:
                stored = opened.load()
            record = json.loads(stored.attrs.pop("calibration"))
        except (OSError, KeyError, ValueError) as error:
            raise ValueError(f"path: {path} is no calibration, or is damaged ({error}).") from None
        if record["format"] > FORMAT:
            raise ValueError(f"path: {path} was written by a newer version; update ppl_lvm.")
        failures = {int(k): v for k, v in record["failures"].items()}
        return assemble(
            stored, failures, **{k: record[k] for k in ("kind", "false_alarm", "num_draws", "about")}
        )

    def _headline(self) -> str:
        n = self.simulations.sizes["simulation"]
        found = int((self.table["finding"] != "").sum())
        what = {"sbc": "Calibration", "vsbc": "Calibration (variational)"}[self.kind]
        verdict = "passed" if self.passed else "failed"
        return (
            f"{what} of {self.about['engine']} on {self.about['model']}: {verdict} "
            f"({n} simulations, {found} of {len(self.table)} quantities off)"
        )

    def _ordered(self) -> pd.DataFrame:
        table = self.table.rename(columns=str)
        return table.sort_values("p_adjusted", kind="stable")[list(_SHOWN)]

    def __repr__(self) -> str:
        lines = [self._headline(), *(f"  {f.level}: {f.sentence}" for f in self.findings[:10])]
        if len(self.findings) > 10:
            lines.append(f"  and {len(self.findings) - 10} more in .findings")
        shown = self._ordered()
        lines += ["", shown.head(20).to_string(float_format=lambda v: f"{v:.3g}")]
        return "\n".join(lines + ([f"and {len(shown) - 20} more in .table"] if len(shown) > 20 else []))

    def _repr_html_(self) -> str:
        from html import escape

        items = "".join(f"<li><b>{f.level}</b>: {escape(f.sentence)}</li>" for f in self.findings)
        table = self._ordered().to_html(float_format=lambda v: f"{v:.3g}", max_rows=40, escape=True)
        return f"<p><b>{escape(self._headline())}</b></p><ul>{items}</ul>{table}"


def assemble(
    simulations: xr.Dataset,
    failures: Mapping[int, str],
    *,
    kind: str,
    false_alarm: float,
    num_draws: int,
    about: Mapping[str, Any],
) -> Calibration:
    """A :class:`Calibration` from its simulations."""
    from ppl_lvm.calibration._table import make_findings, make_table

    table = make_table(simulations, kind, false_alarm)
    findings = tuple(make_findings(table, simulations, failures, num_draws))
    return Calibration(simulations, table, findings, failures, kind, false_alarm, num_draws, about)
