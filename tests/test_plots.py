"""Pictures: labelled, titled, legible, nothing overlapping, no trace left in matplotlib's global state."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import xarray as xr
from figure_checks import LEAST_POINTS, boxes_of, has_label, overlaps, texts_of, visible_axes
from helpers import BRIEF_CHECK
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.datasets import load_iris
from test_vae_plots import CASES as VAE_CASES

import ppl_lvm as lvm
from ppl_lvm import EM, NUTS, SVI, ImportanceSampling, emissions, models, plots
from ppl_lvm.calibration._result import assemble
from ppl_lvm.dimension import DimensionChoice
from ppl_lvm.gaps._means import summary_table
from ppl_lvm.plots import _style, _text


def dollars(matrix: np.ndarray) -> float:
    """A statistic of the data."""
    return float(matrix[:, 0].max())


@dataclasses.dataclass(frozen=True)
class World:
    """Small fits of one mixture, and comparisons of them."""

    fits: dict[str, lvm.Fit]
    with_reference: lvm.Comparison
    without: lvm.Comparison
    points: lvm.Comparison
    plain: lvm.Fit
    factors: lvm.Fit
    factor_point: lvm.Fit
    states: lvm.Fit
    choice: DimensionChoice


def schools(y: Any, sigma: Any) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfNormal(5.0))
    with pyro.plate("school", len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("obs", dist.Normal(theta, sigma), obs=y)


@pytest.fixture(scope="module")
def world() -> World:
    x = load_iris(as_frame=True).data
    mixture = models.GaussianMixture(num_components=3, covariance="diag")
    vi = lvm.fit(mixture, x, SVI(num_steps=200))
    fits = {
        "em": lvm.fit(mixture, x, EM(num_init=2)),
        "vi": vi,
        "a weighted fit with a long name": lvm.fit(
            mixture, x, ImportanceSampling(num_samples=300, proposal=vi)
        ),
        "_nuts $100": lvm.fit(mixture, x, NUTS(backend="numpyro", num_warmup=150, num_samples=100)),
    }
    y = {"y": np.array([28.0, 8.0, -3.0]), "sigma": np.array([15.0, 10.0, 16.0])}
    points = {"em": fits["em"], "map": lvm.fit(mixture, x, EM(num_init=2, estimate="map"))}
    factors = models.FactorAnalysis(latent_dim=1)
    short = NUTS(backend="numpyro", num_warmup=100, num_samples=60, num_chains=2)
    counts = [np.random.default_rng(t).poisson(np.where(np.arange(t) % 20 < 10, 9.0, 2.0)) for t in (60, 45)]
    hmm = models.HMM(num_states=2, emission=emissions.Poisson())
    return World(
        fits,
        lvm.compare(fits, reference="_nuts $100"),
        lvm.compare(fits, spot_check=BRIEF_CHECK),
        lvm.compare(points, spot_check=BRIEF_CHECK),
        lvm.fit(schools, y, SVI(num_steps=50, window=10)),
        lvm.fit(factors, x, short),
        lvm.fit(models.FactorAnalysis(latent_dim=2), x, EM()),
        lvm.fit(hmm, [c.astype(float)[:, None] for c in counts], EM(num_init=2)),
        lvm.choose_dimension(models.PPCA(1), x, (1, 2), loo=SVI(num_steps=300), ard=short),
    )


def chains(world: World) -> lvm.Fit:
    return world.fits["_nuts $100"]


def weighted(world: World) -> lvm.Fit:
    return world.fits["a weighted fit with a long name"]


def loose(world: World) -> lvm.Comparison:
    return lvm.compare({"own": world.plain}, spot_check=BRIEF_CHECK)


def ranks(exponent: float) -> lvm.Calibration:
    """A calibration of five quantities whose ranks are uniform to the power of ``exponent``."""
    u = np.random.default_rng(0).random((60, 5)) ** exponent
    names = ["tau", "a quantity with a long name[3, petal length (cm)]", "$x$", "log_likelihood", "log_prior"]
    single = {k: ("simulation", np.full(60, 99.0)) for k in ("num_draws", "ess", "seconds")}
    both = dict.fromkeys(("rank", "pit", "truth"), (("simulation", "quantity"), u))
    data = xr.Dataset({**single, **both, "status": ("simulation", ["OK"] * 60)}, coords={"quantity": names})
    about = {"model": "schools", "engine": "NUTS"}
    return assemble(data, {}, kind="sbc", false_alarm=0.01, num_draws=99, about=about)


def ladder(exact: bool) -> lvm.EvidenceLadder:
    """Bounds and estimates around -50 nats, one of them far off, one missing."""
    found = {
        "prior IS": lvm.Evidence("estimate", -50.4, 0.6),
        "ELBO": lvm.Evidence("lower_bound", -57.0, 0.1),
        "IWAE_50": lvm.Evidence("lower_bound", -50.6, 0.05),
        "AIS": lvm.Evidence("lower_bound", -1e4, 3.0),
        "SMC": lvm.Evidence("estimate", -50.1, 0.04),
        "reverse": lvm.Evidence("upper_bound", -49.7, 0.1),
    }
    if exact:
        found["exact"] = lvm.Evidence("exact", -50.0, 0.0)
    rows = {k: (e.nats, e.std_error, e.kind, 1.0, "") for k, e in found.items()}
    rows["bridge"] = (np.nan, np.nan, "", 0.0, "chains disagree")
    columns = ["nats", "std_error", "kind", "seconds", "note"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    return lvm.EvidenceLadder("schools", table, found, {})


def gaps(num: int) -> lvm.AmortisationGap:
    """Gaps of ``num`` data; noise takes a few approximation gaps below 0."""
    rng = np.random.default_rng(2)
    table = pd.DataFrame(
        {"amortisation": rng.gamma(2.0, 0.5, num), "approximation": rng.normal(0.3, 0.3, num)}
    )
    table["inference"] = table.sum(axis=1)
    for name in list(table):
        table[f"{name}_error"] = 0.1
    kinds = {"amortisation": "difference", "approximation": "at least", "inference": "at least"}
    settings = {"model": "VAE(latent_dim=10, likelihood='bernoulli', posterior='flow')", "log_p": "ais"}
    return lvm.AmortisationGap(table, summary_table(table, kinds), settings | {"family": "full"}, ())


def carried(size: int) -> lvm.LatentDiagnostics:
    """Figures of ``size`` latent dimensions, some of them idle."""
    kl = np.maximum(3.0 - np.arange(size) / 5, 0.002)
    table = pd.DataFrame({"kl": kl, "activity": kl / 4}, index=[f"z[{i}]" for i in range(size)])
    table = table.assign(kl_error=kl / 20, activity_error=kl / 50, active=kl > 0.04)
    summary = pd.DataFrame({"value": [kl.sum()], "error": [0.2], "kind": [""]}, index=["kl"])
    return lvm.LatentDiagnostics(table, summary, 1000, "VAE(latent_dim=10, likelihood='bernoulli')")


CASES: dict[str, Callable[[World], Figure]] = {
    "plot_ladder": lambda w: plots.plot_ladder(ladder(exact=True)),
    "plot_ladder, no exact value": lambda w: plots.plot_ladder(ladder(exact=False)),
    "plot_gaps": lambda w: plots.plot_gaps(gaps(300)),
    "plot_gaps, few": lambda w: plots.plot_gaps(gaps(5)),
    "plot_gaps, one": lambda w: plots.plot_gaps(gaps(1)),
    "plot_latent_diagnostics": lambda w: plots.plot_latent_diagnostics(carried(5)),
    "plot_latent_diagnostics, many": lambda w: plots.plot_latent_diagnostics(carried(50)),
    "plot_calibration": lambda w: plots.plot_calibration(ranks(2.0)),
    "plot_calibration, ranks": lambda w: plots.plot_calibration(ranks(1.0), kind="ranks"),
    "plot_calibration, ecdf": lambda w: plots.plot_calibration(ranks(2.0), kind="ecdf"),
    "plot_calibration, one": lambda w: plots.plot_calibration(ranks(1.0), quantities=["tau"]),
    "plot_comparison": lambda w: plots.plot_comparison(w.with_reference),
    "plot_comparison, few": lambda w: plots.plot_comparison(w.with_reference, quantities=["weights"]),
    "plot_comparison, no reference": lambda w: plots.plot_comparison(w.without),
    "plot_comparison, points": lambda w: plots.plot_comparison(w.points),
    "plot_comparison, a plain function": lambda w: plots.plot_comparison(loose(w)),
    "plot_marginals": lambda w: plots.plot_marginals(w.with_reference),
    "plot_marginals, no reference": lambda w: plots.plot_marginals(w.without, max_quantities=5),
    "plot_marginals, points": lambda w: plots.plot_marginals(w.points, max_quantities=2),
    "plot_marginals, a plain function": lambda w: plots.plot_marginals(loose(w)),
    "plot_verdicts": lambda w: plots.plot_verdicts(w.with_reference),
    "plot_verdicts, no reference": lambda w: plots.plot_verdicts(w.without),
    "plot_verdicts, points": lambda w: plots.plot_verdicts(w.points),
    "plot_verdicts, one fit": lambda w: plots.plot_verdicts(
        lvm.compare({"nuts": chains(w)}, reference="nuts")
    ),
    "plot_loss": lambda w: plots.plot_loss(w.fits),
    "plot_evidence": lambda w: plots.plot_evidence(w.fits),
    "plot_evidence, all kinds": lambda w: plots.plot_evidence(all_kinds(w)),
    "plot_trace": lambda w: plots.plot_trace(chains(w)),
    "plot_trace, one": lambda w: plots.plot_trace(chains(w), var_names=["weights[0]"]),
    "plot_rank": lambda w: plots.plot_rank(chains(w)),
    "plot_rank, many": lambda w: plots.plot_rank(chains(w), max_quantities=9),
    "plot_khat": lambda w: plots.plot_khat(weighted(w)),
    "plot_khat, a guide": lambda w: plots.plot_khat(w.fits["vi"]),
    "plot_check": lambda w: w.fits["vi"].check(dollars, num_draws=50).plot(),
    "plot_clusters": lambda w: plots.plot_clusters(chains(w)),
    "plot_clusters, one feature": lambda w: plots.plot_clusters(chains(w), features=["petal width (cm)"]),
    "plot_loadings": lambda w: plots.plot_loadings(w.factors),
    "plot_loadings, a point": lambda w: plots.plot_loadings(w.factor_point),
    "plot_latents": lambda w: plots.plot_latents(w.factor_point, labels=np.repeat(["a", "b", "c"], 50)),
    "plot_latents, one dimension": lambda w: plots.plot_latents(w.factors),
    "plot_dimension": lambda w: w.choice.plot(),
    "plot_states": lambda w: plots.plot_states(w.states),
    "plot_states, with times": lambda w: plots.plot_states(w.states, sequence=1, times=1900 + np.arange(45)),
    "plot_model": lambda w: plots.plot_model(lvm.model_graph(chains(w))),
    "plot_model, a plain function": lambda w: plots.plot_model(lvm.model_graph(w.plain)),
    "plot_model, factors": lambda w: plots.plot_model(lvm.model_graph(w.factors)),
    "plot_pairs": lambda w: plots.plot_pairs(w.with_reference),
    "plot_pairs, two": lambda w: plots.plot_pairs(w.without, quantities=["weights"], max_quantities=2),
    "plot_pairs, no reference": lambda w: plots.plot_pairs(w.without),
    "plot_predictive": lambda w: plots.plot_predictive(chains(w)),
    "plot_predictive, a point": lambda w: plots.plot_predictive(w.factor_point, num_draws=10),
    "plot_predictive, counts": lambda w: plots.plot_predictive(w.states, num_draws=10),
    "plot_predictive, one column": lambda w: plots.plot_predictive(w.plain, num_draws=10),
    "plot_clusters, two": lambda w: plots.plot_clusters(w.fits["em"], features=[2, 3]),
}


def all_kinds(world: World) -> dict[str, lvm.Fit]:
    vi = world.fits["vi"]
    given = ("encoder.layer.weight", "encoder.layer.bias", "decoder.layer.weight")
    kinds: dict[str, Any] = {
        "bound": lvm.Evidence("lower_bound", -302.2, 0.4),
        "conditional": lvm.Evidence("lower_bound", -303.5, 0.1, given),
        "upper": lvm.Evidence("upper_bound", -297.1, 0.2),
        "exact": lvm.Evidence("exact", -299.0, 0.0),
        "estimate": lvm.Evidence("estimate", -299.3, 0.5),
    }
    return {name: dataclasses.replace(vi, evidence=value) for name, value in kinds.items()}


@pytest.fixture(scope="module")
def drawn() -> dict[str, Figure]:
    """Figures by case, so that each is made once."""
    return {}


@pytest.fixture
def figure(request: pytest.FixtureRequest, world: World, drawn: dict[str, Figure]) -> Figure:
    case = request.param
    if case not in drawn:
        drawn[case] = CASES[case](world)
        FigureCanvasAgg(drawn[case]).draw()
    return drawn[case]


every_figure = pytest.mark.parametrize("figure", list(CASES), indirect=True)


def test_every_public_plot_is_among_the_cases() -> None:
    public = {name for name in dir(plots) if name.startswith("plot_")}
    assert len(public) >= 10
    assert public == set(plots.__all__)
    assert {case.partition(",")[0] for case in [*CASES, *VAE_CASES]} == public


# ---- what a figure must have ---------------------------------------------------------------------


@every_figure
def test_every_axes_has_labels(figure: Figure) -> None:
    if figure.axes[0].get_label() == "graph":  # nodes and arrows, on no scale
        return
    assert visible_axes(figure)
    for axes in visible_axes(figure):
        if axes.get_label() == "<colorbar>":  # one axis only
            assert axes.get_ylabel()
            continue
        assert has_label(axes, figure, "x"), axes.get_title()
        assert has_label(axes, figure, "y"), axes.get_title()


@every_figure
def test_every_figure_has_a_title_and_a_caption(figure: Figure) -> None:
    title, caption = (text.get_text() for text in figure.texts[:2])
    assert title
    assert caption.endswith(".")


@every_figure
def test_no_text_overlaps_another(figure: Figure) -> None:
    assert overlaps(boxes_of(figure)) == []


@every_figure
def test_all_text_is_inside_the_figure(figure: Figure) -> None:
    width, height = figure.bbox.width, figure.bbox.height
    for text, box in boxes_of(figure):
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
        assert inside, (text, box)


@every_figure
def test_text_is_large_enough_for_the_reports_width(figure: Figure) -> None:
    assert figure.get_size_inches()[0] <= _style.WIDTH
    small = [t.get_text() for t in texts_of(figure) if t.get_fontsize() < LEAST_POINTS]
    assert not small


def test_the_overlap_check_finds_a_planted_overlap() -> None:
    figure = Figure(figsize=(3, 2))
    figure.text(0.4, 0.5, "one text")
    figure.text(0.45, 0.5, "another")
    figure.text(0.1, 0.1, "far away")
    FigureCanvasAgg(figure).draw()
    assert overlaps(boxes_of(figure)) == [("one text", "another")]


# ---- what a figure must leave alone --------------------------------------------------------------


@pytest.mark.parametrize("case", list(CASES))
def test_global_state_of_matplotlib_is_left_alone(case: str, world: World) -> None:
    from matplotlib import pyplot

    def state() -> tuple[dict[str, Any], list[int]]:
        params = {k: dict.__getitem__(matplotlib.rcParams, k) for k in matplotlib.rcParams}
        return params, pyplot.get_fignums()

    before = state()
    with matplotlib.rc_context({"font.size": 21, "axes.facecolor": "red", "text.usetex": True}):
        inside = state()
        figure = CASES[case](world)
        assert state() == inside
    assert state() == before
    # The user's settings do not leak into the picture either.
    assert all(not text.get_usetex() for text in texts_of(figure))
    assert all(axes.get_facecolor() == (1.0, 1.0, 1.0, 1.0) for axes in visible_axes(figure))


HEADLESS = """
import matplotlib, numpy as np, sys
from ppl_lvm import plots
from ppl_lvm.predictive import PredictiveCheck
figure = PredictiveCheck("T", 0.1, np.linspace(0.0, 1.0, 50), 0.9, 0.01).plot()
figure.savefig(sys.argv[1])
assert figure._repr_png_().startswith(b"\\x89PNG")
import arviz_plots
print(matplotlib.get_backend(auto_select=False))
"""


def test_no_backend_is_chosen_and_no_display_needed(tmp_path: Any) -> None:
    surroundings = {
        k: v for k, v in os.environ.items() if k not in ("MPLBACKEND", "DISPLAY", "WAYLAND_DISPLAY")
    }
    target = tmp_path / "check.png"
    done = subprocess.run(
        [sys.executable, "-c", HEADLESS, str(target)],
        env=surroundings,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "None"
    assert target.stat().st_size > 1000


# ---- that they say what is so --------------------------------------------------------------------


def test_the_forest_has_a_marker_for_every_mean_and_an_interval_for_draws_only(world: World) -> None:
    figure = plots.plot_comparison(world.with_reference, quantities=["weights"])
    lines = figure.axes[0].get_lines()
    markers = [line for line in lines if line.get_marker() != "None"]
    assert len(markers) == 3 * 4
    intervals = [line for line in lines if len(line.get_xdata()) == 2 and np.ptp(line.get_ydata()) == 0]
    drawn = [line for line in intervals if np.isfinite(np.asarray(line.get_xdata())).all()]
    assert len(drawn) == 3 * 3  # of four fits one is a point


def test_the_forest_is_in_reference_sds(world: World) -> None:
    figure = plots.plot_comparison(world.with_reference, quantities=["weights[0]"])
    bias = world.with_reference.table.xs("weights[0]", level="quantity")["bias"]
    shown = [
        float(np.asarray(line.get_xdata())[0])
        for line in figure.axes[0].get_lines()
        if line.get_marker() != "None"
    ]
    np.testing.assert_allclose(sorted(shown), sorted(bias), rtol=1e-9, atol=1e-12)


def test_a_mean_far_away_becomes_an_arrow_at_the_edge(world: World) -> None:
    table = world.with_reference.table.copy()
    table.loc[("em", "weights[0]"), "mean"] += 100.0
    far = dataclasses.replace(world.with_reference, table=table)
    figure = plots.plot_comparison(far, quantities=["weights"])
    arrows = [line for line in figure.axes[0].get_lines() if line.get_marker() in ("<", ">")]
    assert len(arrows) == 1
    assert "Arrows" in figure.texts[1].get_text()
    low, high = figure.axes[0].get_xlim()
    assert low < arrows[0].get_xdata()[0] < high


def test_of_too_many_quantities_the_worst_stay_in_the_tables_order(world: World) -> None:
    from ppl_lvm.plots._choose import chosen

    table = world.with_reference.table
    shown, note = chosen(world.with_reference, None, 5)
    bias = table["bias"].abs().groupby(level="quantity").max() / 0.5
    ratio = np.log(table["sd_ratio"]).abs().groupby(level="quantity").max() / np.log(4 / 3)
    expected = np.fmax(bias, ratio).sort_values(ascending=False).index[:5]
    assert set(shown) == set(expected)
    order = list(dict.fromkeys(table.index.get_level_values("quantity")))
    assert shown == [q for q in order if q in shown]
    assert note.startswith(f"Of {len(order)} quantities, the 5")


def test_the_marginals_have_a_curve_for_each_fit_with_draws(world: World) -> None:
    figure = plots.plot_marginals(world.with_reference, quantities=["loc[0, petal length (cm)]"])
    curves = [line for line in figure.axes[0].get_lines() if len(line.get_xdata()) > 100]
    assert len(curves) == 3
    for line in curves:  # densities: each integrates to one, but for what the kernel loses at its ends
        x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
        assert np.trapezoid(y, x) == pytest.approx(1.0, abs=0.02)


def test_the_verdicts_show_every_quantity_that_has_a_spread(world: World) -> None:
    figure = plots.plot_verdicts(world.with_reference)
    titles = [axes.get_title(loc="left").splitlines()[0] for axes in figure.axes]
    assert [t.partition(":")[0] for t in titles] == ["em", "vi", "a weighted fit with a long name"]
    rows = world.with_reference.table.loc["vi"]
    marks = [line for line in figure.axes[1].get_lines() if line.get_marker() not in ("None", "_", "|", "")]
    assert sum(len(line.get_xdata()) for line in marks) == len(rows)


def test_loss_shows_the_bound_and_the_log_likelihood(world: World) -> None:
    figure = plots.plot_loss(world.fits)
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels == ["log likelihood (nats)", "bound (nats)"]
    last = float(np.asarray(figure.axes[0].get_lines()[0].get_ydata())[-1])
    assert last == pytest.approx(
        world.fits["em"].log_likelihood, abs=1e-3
    )  # a step before the last counts less


def test_arrows_of_bounds_point_to_where_the_evidence_lies(world: World) -> None:
    figure = plots.plot_evidence(all_kinds(world))
    arrows = [text for text in figure.axes[0].texts if getattr(text, "arrow_patch", None) is not None]
    ways = [np.sign(a.xy[0] - a.xyann[0]) for a in arrows]  # type: ignore[attr-defined]
    assert ways == [1, 1, -1]
    shown = [t.get_text() for t in figure.axes[0].child_axes[0].get_yticklabels()]
    assert shown[0] == "≥ −302.20 ± 0.40"
    assert shown[3] == "= −299.00"


def test_khat_is_the_fits_own(world: World) -> None:
    value = weighted(world).status.details["khat"]
    figure = plots.plot_khat(weighted(world))
    assert figure.texts[0].get_text().endswith(f"k-hat = {value:.2f}")


def test_clusters_colour_every_row_once(world: World) -> None:
    figure = plots.plot_clusters(chains(world))
    assert len(figure.axes) == 6
    labels = chains(world).predict()
    for axes in figure.axes:
        sizes = [len(c.get_offsets()) for c in axes.collections]
        assert sizes == [int((labels == k).sum()) for k in range(3)]
    assert {a.get_xlabel() for a in figure.axes if a.get_xlabel()} <= {
        "sepal length (cm)", "sepal width (cm)", "petal length (cm)",
    }  # fmt: skip


def test_traces_mark_divergent_transitions(world: World) -> None:
    stats = chains(world).sample_stats.copy()
    stats["diverging"] = stats["diverging"].copy()
    stats["diverging"][0, 3:5] = True
    plain = plots.plot_trace(chains(world), var_names=["weights[0]"])
    marked = plots.plot_trace(
        dataclasses.replace(chains(world), sample_stats=stats), var_names=["weights[0]"]
    )

    def count(figure: Figure) -> int:
        return len(figure.axes[0].get_lines()) + len(figure.axes[0].collections)

    assert count(plain) == 4
    assert count(marked) > 4


# ---- looks and text ------------------------------------------------------------------------------


def test_looks_differ_in_more_than_colour() -> None:
    found = _style.looks([f"fit {i}" for i in range(12)], reference="fit 3")
    assert found["fit 3"].color == "#000000"
    first = list(found.values())[:6]
    assert len({look.color for look in first}) == 6
    assert len({look.marker for look in first}) == 6
    assert len({str(look.line) for look in _style.looks(range(6)).values()}) == 6
    assert len({(look.color, look.marker) for look in found.values()}) == 12
    unknown = _style.looks([f"fit {i}" for i in range(12)])
    assert all(unknown[name] == look for name, look in found.items() if name != "fit 3")


def luminance(color: str) -> float:
    """Relative luminance (WCAG 2.2), 0 black to 1 white."""
    parts = np.array(matplotlib.colors.to_rgb(color))
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_colours_stand_out_from_white_and_text_more() -> None:
    for color in _style.COLORS:
        assert 1.05 / (luminance(color) + 0.05) > 2.0, color
    for color in (_style.INK, _style.FAINT):
        assert 1.05 / (luminance(color) + 0.05) > 4.5, color


def test_wrapped_lines_fit_and_keep_every_word() -> None:
    text = "a long label with several words and an_extraordinarily_long_word_" + "x" * 80
    lines = _text.wrap(text, 2.0)
    assert all(_text.text_width(line) <= 2.0 for line in lines)
    assert " ".join(lines).startswith("a long label with several words and")
    assert _text.shorten("short", 2.0) == "short"
    assert "…" in _text.shorten("x" * 200, 2.0)


def test_dollars_start_no_formula() -> None:
    x = pd.DataFrame(load_iris().data, columns=["$a_b", "c$ 50 %", "d", "e"])
    fit = lvm.fit(models.GaussianMixture(num_components=3, covariance="diag"), x, EM(num_init=1))
    figure = plots.plot_clusters(fit, features=["$a_b", "c$ 50 %"])
    FigureCanvasAgg(figure).draw()
    comparison = plots.plot_comparison(lvm.compare({"em$": fit, "b$": fit}, spot_check=BRIEF_CHECK))
    FigureCanvasAgg(comparison).draw()
    assert figure.axes[0].get_xlabel().replace("\\", "") == "$a_b"


# ---- refusals ------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Callable[[World], Any], str]] = {
    "an unknown quantity": (
        lambda w: plots.plot_comparison(w.without, quantities=["nonsense"]), "no \\['nonsense'\\]",
    ),
    "no quantities": (lambda w: plots.plot_marginals(w.without, max_quantities=0), "max_quantities"),
    "no chain": (lambda w: plots.plot_trace(w.fits["vi"]), "not a chain"),
    "a point": (lambda w: plots.plot_rank(w.fits["em"]), "gives a point"),
    "no weights": (lambda w: plots.plot_khat(chains(w)), "no importance weights"),
    "nothing optimised": (lambda w: plots.plot_loss({"nuts": chains(w)}), "none was optimised"),
    "no evidence": (lambda w: plots.plot_evidence({"nuts": chains(w)}), "none gives"),
    "an unknown feature": (lambda w: plots.plot_clusters(chains(w), features=["mass"]), "no 'mass'"),
    "no feature": (lambda w: plots.plot_clusters(chains(w), features=[]), "at least one"),
    "no data": (
        lambda w: plots.plot_clusters(dataclasses.replace(chains(w), problem=None)), "without its data",
    ),
    "no labels": (lambda w: plots.plot_clusters(w.plain), "no labels"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_cannot_be_shown_is_refused_in_words(case: str, world: World) -> None:
    make, words = REFUSED[case]
    with pytest.raises(ValueError, match=words):
        make(world)


def test_one_chain_has_no_ranks(world: World) -> None:
    one = chains(world)
    draws = one.posterior.isel(chain=[0])
    with pytest.raises(ValueError, match="at least 2 chains"):
        plots.plot_rank(dataclasses.replace(one, draws=draws))


@pytest.mark.parametrize("wrong", [None, {}, {"a": 3}])
def test_fits_must_be_fits(wrong: Any) -> None:
    with pytest.raises(TypeError, match="fits"):
        plots.plot_loss(wrong)


def test_long_chains_are_thinned_before_ranking(world: World) -> None:
    long = chains(world)
    draws = long.posterior.isel(draw=np.tile(np.arange(100), 25)).assign_coords(draw=np.arange(2500))
    figure = plots.plot_rank(
        dataclasses.replace(long, draws=draws, sample_stats=None), var_names=["weights[0]"]
    )
    assert "Every 9th draw." in figure.texts[1].get_text()
    assert all(len(line.get_xdata()) <= 600 for line in figure.axes[0].get_lines())
