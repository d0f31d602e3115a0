"""Pictures of VAEs show what the fit's methods give, say what they show, and refuse what they cannot show."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from figure_checks import LEAST_POINTS, boxes_of, has_label, overlaps, texts_of, visible_axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import ppl_lvm as lvm
from ppl_lvm import ELBO, EM, SVI, Annealing, Renyi, models, networks, plots
from ppl_lvm.plots import _style
from ppl_lvm.plots._images import tiles_of

ROWS = 60
SMALL = networks.MLP((8,))


@dataclasses.dataclass(frozen=True)
class World:
    """Tiny fits of digits, one for each way in which data are drawn."""

    x: np.ndarray
    digits: np.ndarray
    grey: lvm.Fit
    flat: lvm.Fit
    fits: dict[str, lvm.Fit]
    mixture: lvm.Fit


def train(x: np.ndarray, latent_dim: int = 3, engine: Any = None, **settings: Any) -> lvm.Fit:
    """Two epochs on Pyro, where nothing is compiled."""
    model = models.VAE(latent_dim=latent_dim, encoder=SMALL, decoder=SMALL, **settings)
    return lvm.fit(model, x, engine or SVI(backend="pyro", batch_size=20, num_epochs=2), progress=False)


@pytest.fixture(scope="module")
def world() -> World:
    found = load_digits()
    counts, digits = found.images[:ROWS], found.target[:ROWS]
    x = (counts / 16).astype(np.float32)
    scheduled = SVI(
        backend="numpyro", batch_size=20, num_epochs=12, validation=0.3, learning_rate_decay=0.1,
        objective=ELBO(beta=Annealing(num_epochs=4)),
    )  # fmt: skip
    tight = SVI(backend="pyro", batch_size=20, num_epochs=3, objective=Renyi(num_particles=2))
    grey = train(x, engine=scheduled, likelihood="continuous_bernoulli")
    fits = {
        "binarised": train(x, binarise=True),
        "vectors": train((x - x.mean(0)).reshape(ROWS, 64)[:, 20:29], likelihood="gaussian"),
        "counts": train(counts, likelihood="poisson"),
        "categories": train(np.round(counts[:, :3, :4] / 8).astype(int), likelihood="categorical"),
        "colours": train(np.stack([x[:, :4, :4]] * 3, 1) - 0.5, likelihood="gaussian", noise_scale=0.3),
        "channels": train(np.stack([x[:, :4, :4]] * 2, 1), likelihood="continuous_bernoulli"),
        "one latent": train(x, 1, engine=tight, binarise=True),
    }
    flat = train(x.reshape(ROWS, 64), 2, likelihood="continuous_bernoulli")
    mixture = lvm.fit(models.GaussianMixture(1, covariance="diag"), x[:20, 2, 2:4], EM(num_init=1))
    return World(x, digits, grey, flat, fits, mixture)


SHAPE = {"image_shape": (8, 8)}


def groups(w: World) -> tuple[np.ndarray, np.ndarray]:
    return w.x[w.digits == 1], w.x[w.digits == 7]


CASES: dict[str, Callable[[World], Figure]] = {
    "plot_samples": lambda w: plots.plot_samples(w.grey),
    "plot_samples, draws": lambda w: plots.plot_samples(w.fits["binarised"], 7, mean=False),
    "plot_samples, vectors": lambda w: plots.plot_samples(w.fits["vectors"], 25),
    "plot_samples, counts": lambda w: plots.plot_samples(w.fits["counts"], 12),
    "plot_samples, categories": lambda w: plots.plot_samples(w.fits["categories"], 10, mean=False),
    "plot_samples, one": lambda w: plots.plot_samples(w.grey, 1),
    "plot_reconstructions": lambda w: plots.plot_reconstructions(w.grey),
    "plot_reconstructions, binarised": lambda w: plots.plot_reconstructions(w.fits["binarised"], w.x, num=7),
    "plot_reconstructions, vectors": lambda w: plots.plot_reconstructions(w.fits["vectors"]),
    "plot_reconstructions, categories": lambda w: plots.plot_reconstructions(w.fits["categories"], num=5),
    "plot_reconstructions, channels": lambda w: plots.plot_reconstructions(w.fits["channels"], num=5),
    "plot_reconstructions, one": lambda w: plots.plot_reconstructions(w.grey, w.x[0]),
    "plot_traversals": lambda w: plots.plot_traversals(w.grey),
    "plot_traversals, a datum": lambda w: plots.plot_traversals(w.grey, w.x[3], dims=[2], num=5),
    "plot_traversals, vectors": lambda w: plots.plot_traversals(w.fits["vectors"]),
    "plot_interpolation": lambda w: plots.plot_interpolation(w.grey, w.x[0], w.x[1]),
    "plot_interpolation, pairs": lambda w: plots.plot_interpolation(
        w.flat, w.x[:3].reshape(3, 64), w.x[3:6].reshape(3, 64), num=4, **SHAPE
    ),
    "plot_arithmetic": lambda w: plots.plot_arithmetic(
        w.grey, w.x[:2], *groups(w), names=("a name that is rather long, $x_1$", "seven")
    ),
    "plot_manifold": lambda w: plots.plot_manifold(w.flat, num=5, **SHAPE),
    "plot_manifold, two of three": lambda w: plots.plot_manifold(w.grey, num=4, dims=(2, 0)),
    "plot_training": lambda w: plots.plot_training(w.grey),
    "plot_training, several": lambda w: plots.plot_training(
        {"grey": w.grey, "$k$ = 2": w.fits["one latent"]}
    ),
    "plot_latents, an encoder": lambda w: plots.plot_latents(w.grey, labels=w.digits),
}


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


# ---- what a figure must have ---------------------------------------------------------------------


def named(axis: Any) -> bool:
    """Tick labels that are words need no label of the axis."""
    found = [t.get_text() for t in axis.get_ticklabels()]
    return bool(found) and all(t.isalpha() for t in found)


@every_figure
def test_every_axes_says_what_it_shows(figure: Figure) -> None:
    assert visible_axes(figure)
    for axes in visible_axes(figure):
        if axes.get_label() == "<colorbar>":
            assert axes.get_ylabel()
            continue
        assert has_label(axes, figure, "x")
        assert has_label(axes, figure, "y") or named(axes.yaxis)


@every_figure
def test_title_caption_and_legible_text_inside_that_overlaps_nothing(figure: Figure) -> None:
    title, caption = (text.get_text() for text in figure.texts[:2])
    assert title
    assert caption.endswith(".")
    boxes = boxes_of(figure)
    assert overlaps(boxes) == []
    width, height = figure.bbox.width, figure.bbox.height
    outside = [t for t, b in boxes if b.x0 < -1 or b.y0 < -1 or b.x1 > width + 1 or b.y1 > height + 1]
    assert not outside
    assert not [t for t in texts_of(figure) if t.get_fontsize() < LEAST_POINTS]
    assert figure.get_size_inches()[0] <= _style.WIDTH
    area = figure.axes[0].get_window_extent()
    assert not [t for t in figure.texts if t.get_window_extent().overlaps(area)]  # head and picture


# ---- that they show what is so -------------------------------------------------------------------


def picture(figure: Figure) -> np.ndarray:
    """What is drawn, gaps as NaN."""
    (image,) = figure.axes[0].images
    return np.ma.filled(np.ma.asarray(image.get_array(), dtype=float), np.nan)


def tile(figure: Figure, row: int, column: int, size: int = 8, gap: int = 1) -> np.ndarray:
    step = size + gap
    return picture(figure)[row * step : row * step + size, column * step : column * step + size]


def same(found: np.ndarray, expected: np.ndarray) -> None:
    """The same numbers: only float32 arithmetic in blocks of other sizes lies between."""
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


def test_samples_are_the_fits_own_in_their_order(world: World) -> None:
    figure = plots.plot_samples(world.grey, 12, seed=5)
    own = world.grey.sample(12, seed=5, mean=True)
    assert picture(figure).shape == (3 * 9 - 1, 4 * 9 - 1)
    for i in range(12):
        same(tile(figure, *divmod(i, 4)), own[i])
    other = plots.plot_samples(world.grey, 12, seed=6)
    assert not np.allclose(picture(other), picture(figure), equal_nan=True)


def test_draws_are_zeros_and_ones(world: World) -> None:
    figure = plots.plot_samples(world.fits["binarised"], 9, mean=False)
    found = picture(figure)
    assert set(np.unique(found[np.isfinite(found)])) == {0.0, 1.0}
    assert figure.axes[1].get_ylabel() == "value"


def test_reconstructions_stand_below_their_data(world: World) -> None:
    figure = plots.plot_reconstructions(world.grey, world.x, num=6, columns=4)
    own = world.grey.reconstruct(world.x[:6])
    for i in range(6):
        row, column = divmod(i, 4)
        same(tile(figure, 2 * row, column), world.x[i])
        same(tile(figure, 2 * row + 1, column), own[i])
    assert np.isnan(tile(figure, 2, 3)).all()  # six data in rows of four leave two places
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["data", "model"] * 2


def test_binarised_data_are_shown_as_the_encoder_saw_them(world: World) -> None:
    fit = world.fits["binarised"]
    figure = plots.plot_reconstructions(fit, world.x, num=4, columns=4)
    seen = np.stack([tile(figure, 0, i) for i in range(4)])
    assert set(np.unique(seen)) == {0.0, 1.0}
    for i, mean in enumerate(fit.reconstruct(seen)):
        same(tile(figure, 1, i), mean)


def test_traversals_move_one_latent_the_most_used_first(world: World) -> None:
    spread = world.grey.transform().std(0)
    figure = plots.plot_traversals(world.grey, num=5, reach=2.0)
    order = np.argsort(-spread)
    labels = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert labels == [f"{k} ({spread[k]:.2f})" for k in order]
    for row, k in enumerate(order):
        z = np.zeros((5, 3))
        z[:, k] = [-2, -1, 0, 1, 2]
        for column, mean in enumerate(world.grey.inverse_transform(z)):
            same(tile(figure, row, column), mean)


def test_traversals_from_a_datum_hold_the_others_at_its_means(world: World) -> None:
    figure = plots.plot_traversals(world.grey, world.x[4], dims=[1], num=3, reach=1.5)
    z = np.tile(world.grey.transform(world.x[4:5])[0], (3, 1))
    z[:, 1] = [-1.5, 0.0, 1.5]
    for column, mean in enumerate(world.grey.inverse_transform(z)):
        same(tile(figure, 0, column), mean)


def test_interpolation_goes_from_one_datum_to_the_other(world: World) -> None:
    a, b = world.x[2], world.x[8]
    figure = plots.plot_interpolation(world.grey, a, b, num=3)
    za, zb = world.grey.transform(np.stack([a, b]))
    between = world.grey.inverse_transform(np.stack([za, (za + zb) / 2, zb]))
    for column, expected in enumerate([a, *between, b]):
        same(tile(figure, 0, column), expected)


def test_arithmetic_adds_the_difference_of_means(world: World) -> None:
    ones, sevens = groups(world)
    figure = plots.plot_arithmetic(world.grey, world.x[:2], ones, sevens, steps=(0.0, 1.0, -2.0))
    way = world.grey.transform(ones).mean(0) - world.grey.transform(sevens).mean(0)
    start = world.grey.transform(world.x[:2])
    for row in range(2):
        same(tile(figure, row, 0), world.x[row])
        z = start[row] + np.array([0.0, 1.0, -2.0])[:, None] * way
        for column, mean in enumerate(world.grey.inverse_transform(z)):
            same(tile(figure, row, 1 + column), mean)
    same(tile(figure, 0, 1), world.grey.reconstruct(world.x[:1])[0])


def test_the_manifold_is_at_quantiles_of_the_prior(world: World) -> None:
    figure = plots.plot_manifold(world.flat, num=3, image_shape=(8, 8))
    low, middle, high = (NormalDist().inv_cdf(p) for p in (1 / 6, 1 / 2, 5 / 6))
    corners = world.flat.inverse_transform(
        np.array([[low, high], [high, high], [low, low], [middle, middle]])
    )
    for at, mean in zip(((0, 0), (0, 2), (2, 0), (1, 1)), corners, strict=True):
        same(tile(figure, *at), mean.reshape(8, 8))


def test_training_shows_the_fits_history(world: World) -> None:
    figure = plots.plot_training(world.grey)
    own = world.grey.groups["training"]
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["bound", "E log p(x | z)", "KL(q(z | x) || p(z))", "beta", "learning rate"]
    curves = [np.asarray(line.get_ydata()) for line in figure.axes[0].get_lines()]
    for found, name in zip(curves, ("bound", "validation_bound", "objective"), strict=True):
        np.testing.assert_allclose(found, own[name].values, rtol=1e-12)
    for axes, name in zip(figure.axes[1:], ("log_lik", "kl", "beta", "learning_rate"), strict=True):
        np.testing.assert_allclose(axes.get_lines()[0].get_ydata(), own[name].values, rtol=1e-12)


def test_a_bound_that_was_maximised_itself_is_drawn_once(world: World) -> None:
    figure = plots.plot_training(world.fits["one latent"])
    assert len(figure.axes) == 3
    assert len(figure.axes[0].get_lines()) == 1
    assert "importance-weighted" in figure.texts[1].get_text()


def test_latents_of_an_encoder_are_its_means(world: World) -> None:
    mean, sd = world.grey.transform(return_std=True)
    a, b = sorted(np.argsort(-mean.std(0))[:2])
    figure = plots.plot_latents(world.grey, labels=world.digits)
    (axes,) = figure.axes
    marks = [c for c in axes.collections if len(c.get_paths()) == 1 and c.get_facecolors().size]
    found = np.concatenate([np.asarray(c.get_offsets()) for c in marks])
    order = np.argsort(world.digits, kind="stable")
    same(found, mean[order][:, [a, b]])
    assert axes.get_xlabel() == f"latent {a}, in prior sds"
    colours = {tuple(c.get_facecolors()[0]) for c in marks}
    assert len(colours) == len(marks) == 10  # ten digits, ten colours
    assert sd.shape == mean.shape


# ---- scales --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "limits", "label"),
    [
        ("binarised", (0.0, 1.0), "probability of a 1"),
        ("channels", (0.0, 1.0), "mean, 0 to 1"),
        ("counts", (0.0, None), "mean count"),
        ("categories", (-0.5, 2.5), "most probable category"),
    ],
)
def test_a_scale_fits_the_likelihood(name: str, limits: tuple[float, Any], label: str, world: World) -> None:
    figure = plots.plot_samples(world.fits[name], 6)
    (image,) = figure.axes[0].images
    low, high = image.get_clim() if name != "categories" else image.norm.boundaries[[0, -1]]
    found = picture(figure)
    assert low == limits[0]
    assert high == (np.nanmax(found) if limits[1] is None else limits[1])
    assert figure.axes[1].get_ylabel() == label


def test_vectors_have_a_scale_around_zero_and_a_column_each(world: World) -> None:
    fit = world.fits["vectors"]
    figure = plots.plot_samples(fit, 20, seed=1)
    own = fit.sample(20, seed=1, mean=True)
    same(picture(figure), own.T)
    low, high = figure.axes[0].images[0].get_clim()
    assert low == -high == -np.abs(picture(figure)).max()
    assert "A column of cells is a datum" in figure.texts[1].get_text().replace("\n", " ")


def test_categories_are_the_most_probable_ones(world: World) -> None:
    fit = world.fits["categories"]
    figure = plots.plot_samples(fit, 4, seed=2)
    own = fit.sample(4, seed=2, mean=True)
    assert own.shape == (4, 3, 4, 3)
    columns = (picture(figure).shape[1] + 1) // 5
    for i in range(4):
        row, column = divmod(i, columns)
        found = picture(figure)[row * 4 : row * 4 + 3, column * 5 : column * 5 + 4]
        np.testing.assert_array_equal(found, own[i].argmax(-1))


def test_three_channels_are_colours_from_the_least_to_the_greatest_value(world: World) -> None:
    fit = world.fits["colours"]
    figure = plots.plot_samples(fit, 4, seed=2)
    own = np.moveaxis(fit.sample(4, seed=2, mean=True), 1, -1)
    found = picture(figure)
    assert len(figure.axes) == 1
    assert found.shape[-1] == 3
    same(found[:4, :4], (own[0] - own.min()) / (own.max() - own.min()))
    assert "Colours go from" in figure.texts[1].get_text().replace("\n", " ")


def test_other_channels_stand_side_by_side(world: World) -> None:
    tiles = tiles_of("a", world.fits["channels"], None)
    data = np.stack([world.x[:2, :4, :4], world.x[:2, 4:, :4]], axis=1)
    np.testing.assert_array_equal(tiles.of(data), np.concatenate([data[:, 0], data[:, 1]], axis=2))


# ---- refusals ------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Callable[[World], Any], str]] = {
    "no encoder": (lambda w: plots.plot_samples(w.mixture), "no encoder and decoder"),
    "no encoder, training": (lambda w: plots.plot_training(w.mixture), "none was trained by epochs"),
    "an image of another size": (lambda w: plots.plot_samples(w.flat, image_shape=(8, 9)), "with 64 entries"),
    "an image of four axes": (lambda w: plots.plot_samples(w.flat, image_shape=(2, 2, 2, 8)), "image_shape"),
    "data of another shape": (
        lambda w: plots.plot_reconstructions(w.grey, w.x[:, :4]),
        r"x: expected .*\(8, 8\)",
    ),
    "no samples": (lambda w: plots.plot_samples(w.grey, 0), "num"),
    "unlike pairs": (lambda w: plots.plot_interpolation(w.grey, w.x[:2], w.x[:3]), "as many of each"),
    "a point of a line": (lambda w: plots.plot_interpolation(w.grey, w.x[0], w.x[1], num=1), "at least 2"),
    "several data": (lambda w: plots.plot_traversals(w.grey, w.x[:2]), "one datum"),
    "unknown dims": (lambda w: plots.plot_traversals(w.grey, dims=[3]), "from 0 to 2"),
    "the same dims": (lambda w: plots.plot_manifold(w.grey, dims=(1, 1)), "different"),
    "no reach": (lambda w: plots.plot_traversals(w.grey, reach=0), "reach"),
    "three latents": (lambda w: plots.plot_manifold(w.grey), "give dims"),
    "one latent": (lambda w: plots.plot_manifold(w.fits["one latent"]), "plot_traversals shows one"),
    "no step": (lambda w: plots.plot_arithmetic(w.grey, w.x[:1], *groups(w), steps=[np.nan]), "steps"),
    "an empty group": (lambda w: plots.plot_arithmetic(w.grey, w.x[:1], w.x[:0], w.x[:1]), "plus"),
    "no data": (lambda w: plots.plot_reconstructions(without_data(w.grey)), "without its data"),
    "labels of another length": (lambda w: w.grey.to_html("a.html", labels=[1, 2]), "labels"),
    "labels without an encoder": (lambda w: w.mixture.to_html("a.html", labels=[1]), "leave them out"),
}


def without_data(fit: lvm.Fit) -> lvm.Fit:
    return dataclasses.replace(fit, problem=None)


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_cannot_be_shown_is_refused_in_words(case: str, world: World) -> None:
    make, words = REFUSED[case]
    with pytest.raises(ValueError, match=words):
        make(world)


@pytest.mark.parametrize("wrong", [None, {}, {"a": 3}])
def test_fits_must_be_fits(wrong: Any) -> None:
    with pytest.raises(TypeError, match="Fit"):
        plots.plot_training(wrong)
    with pytest.raises(TypeError, match="Fit"):
        plots.plot_samples(wrong)


def test_a_fit_without_data_is_drawn_where_none_are_needed(world: World) -> None:
    figure = plots.plot_traversals(without_data(world.grey), num=3)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["0", "1", "2"]


# ---- the report ----------------------------------------------------------------------------------

ALL = ["Training", "Samples", "Reconstructions", "Latent positions", "Traversals", "Interpolation"]


def test_the_report_has_the_result_its_kind_and_the_pictures(world: World, tmp_path: Path) -> None:
    from test_report import Page

    path = world.flat.to_html(tmp_path / "new" / "fit.html", labels=world.digits, image_shape=(8, 8))
    page = Page(path.read_text("utf-8"))
    assert not page.open
    names = [str(a["aria-label"]) for a, _ in page.all("div") if a.get("class") == "picture"]
    assert names == [*ALL, "Latent arithmetic", "Manifold"]
    assert len(page.all("img")) == len(page.all("figcaption")) == len(names)
    assert all(len(str(a["alt"])) > 20 and a["width"] for a, _ in page.all("img"))
    assert all(str(a["src"]).startswith("data:image/svg+xml") for a, _ in page.all("img"))
    text = " ".join("".join(page.inside("result").text).split())
    evidence = world.flat.evidence
    assert evidence is not None
    value = f"{evidence.nats:.2f} ± {evidence.std_error:.2f}".replace("-", "−")
    assert f"log p(x) ≥ {value} nats" in text
    assert "lower bound" in text
    assert "decoder the log evidence is at least this" in text  # a network counts as one
    for word in ("num_epochs=2", "batch_size=20", "latent_dim=2", "float32", "numpyro"):
        assert word in "".join(page.inside("settings").text), word
    assert "60 × 64" in "".join(page.inside("model").text)
    targets = [str(a["href"])[1:] for a, _ in page.all("a")]
    assert set(targets) <= {str(a["id"]) for _, a, _ in page.elements if "id" in a}
    assert not page.all("script")
    with pytest.raises(ValueError, match="folder"):
        world.flat.to_html(tmp_path)


def test_what_a_report_cannot_have_is_named(world: World, tmp_path: Path) -> None:
    from test_report import Page

    world.grey.save(tmp_path / "fit", data=False)
    page = Page(lvm.load(tmp_path / "fit").to_html(tmp_path / "fit.html").read_text("utf-8"))
    text = "".join(page.inside("pictures").text)
    assert len(page.all("img")) == 3
    for name in ("Reconstructions", "Latent positions", "Interpolation", "Latent arithmetic"):
        assert f"{name}: " in text
    assert "loaded without its data" in "".join(page.inside("model").text)


def test_other_fits_have_the_report_of_a_comparison(world: World, tmp_path: Path) -> None:
    text = world.mixture.to_html(tmp_path / "em.html").read_text("utf-8")
    assert "Comparison of 1 fit" in text
    assert "GaussianMixture" in text
