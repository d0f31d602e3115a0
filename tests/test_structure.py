"""The graph of a model: sites, what each depends on, its statement in words, its place in the picture."""

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import ppl_lvm as lvm
from ppl_lvm import EM, emissions, models, plots
from ppl_lvm.plots._graph_layout import Block, lay_out
from ppl_lvm.structure import ModelGraph, Node

SCHOOLS = {"y": np.array([28.0, 8.0, -3.0]), "sigma": np.array([15.0, 10.0, 16.0])}
ROWS = np.random.default_rng(0).normal(size=(12, 3))


def schools(y: Any, sigma: Any) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + tau * z)
        pyro.sample("obs", dist.Normal(theta, sigma), obs=y)


def topics(x: Any) -> None:
    w = pyro.sample("w", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("topic", 3):
        b = pyro.sample("b", dist.Dirichlet(0.5 * torch.ones(5)))
    with pyro.plate("word", len(x)):
        z = pyro.sample("z", dist.Categorical(w), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Categorical(b[z]), obs=x)


def crossed(x: Any) -> None:
    rows, columns = pyro.plate("row", 3, dim=-1), pyro.plate("column", 4, dim=-2)
    with rows:
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
    with columns:
        b = pyro.sample("b", dist.Normal(0.0, 1.0))
    with columns, rows:
        pyro.sample("x", dist.Normal(a, b.exp()), obs=x)


def with_param_and_factor(y: Any) -> None:
    rate = pyro.param("rate", torch.tensor(1.0), constraint=dist.constraints.positive)
    flat = pyro.sample("flat", dist.ImproperUniform(dist.constraints.real, (), ()))
    size = pyro.sample("size", dist.Exponential(rate))
    pyro.factor("penalty", -size * flat**2)
    pyro.sample("obs", dist.Normal(3 * flat, size).expand([len(y)]).to_event(1), obs=y)


def parents_of(graph: ModelGraph) -> dict[str, tuple[str, ...]]:
    return {n.name: n.parents for n in graph.nodes}


CASES: dict[str, tuple[Any, Any, dict[str, tuple[str, ...]], list[str]]] = {
    "schools": (
        schools,
        SCHOOLS,
        {"mu": (), "tau": (), "z": (), "theta": ("mu", "tau", "z"), "obs": ("theta",)},
        ["mu ~ Normal(0, 5)", "tau ~ HalfCauchy(5)", "theta = f(mu, tau, z)", "obs ~ Normal(theta, sigma)"],
    ),
    "topics": (
        topics,
        np.random.default_rng(0).integers(0, 5, 20),
        {"w": (), "b": (), "z": ("w",), "x": ("b", "z")},
        ["b ~ Dirichlet(0.5)", "z ~ Categorical(w)", "x ~ Categorical(b[z])"],
    ),
    "crossed plates": (
        crossed,
        np.zeros((4, 3)),
        {"a": (), "b": (), "x": ("a", "b")},
        ["x ~ Normal(a, exp(b))"],
    ),
    "param, factor and an improper prior": (
        with_param_and_factor,
        np.zeros(4),
        {"rate": (), "flat": (), "size": ("rate",), "penalty": ("flat", "size"), "obs": ("flat", "size")},
        ["rate = a parameter", "size ~ Exponential(rate)", "log p(penalty) = f(flat, size)",
         "obs ~ Normal(f(flat), size)"],
    ),
    "Gaussian mixture": (
        models.GaussianMixture(2, covariance="diag"),
        ROWS,
        {"weights": (), "loc": (), "scale": (), "assignment": ("weights",),
         "obs": ("loc", "scale", "assignment")},
        ["weights ~ Dirichlet(2)", "obs ~ MultivariateNormal(loc[assignment], f(scale, assignment))"],
    ),
    "mixture of counts": (
        models.Mixture(2, emissions.Poisson()),
        np.random.default_rng(0).poisson(3, (12, 2)),
        {"weights": (), "rate": (), "assignment": ("weights",), "obs": ("rate", "assignment")},
        ["obs ~ Poisson(rate[assignment])"],
    ),
    "HMM, whose density is our own": (
        models.HMM(2),
        np.random.default_rng(0).poisson(3, 12),
        {"initial": (), "transition": (), "rate": (), "obs": ("initial", "transition", "rate")},
        ["obs ~ MarkovSequence(initial, transition, rate)"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_dependencies_and_statements(case: str) -> None:
    model, data, parents, sentences = CASES[case]
    graph = lvm.model_graph(model, data)
    assert parents_of(graph) == parents
    found = [n.sentence for n in graph.nodes]
    assert [s for s in sentences if s not in found] == []


def test_collapsed_factors_keep_their_parents() -> None:
    graph = lvm.model_graph(models.PPCA(1), ROWS)
    assert parents_of(graph)["obs"] == ("loc", "loadings", "scale")
    assert set(parents_of(graph)["loadings"]) == {"loadings_diag", "loadings_lower"}


def test_a_constant_that_equals_a_label_by_chance_is_no_label() -> None:
    """The scale is a computed 1 where the label may be 1 too: one run alone could not tell them apart."""

    def coin(y: Any) -> None:
        z = pyro.sample("z", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
        pyro.sample("obs", dist.Normal(z, 1.0 + 0.0 * z), obs=y)

    assert lvm.model_graph(coin, np.array(0.3)).nodes[1].statement == "Normal(z, f(z))"


def test_a_fit_has_a_graph_and_one_without_data_says_why(tmp_path: Any) -> None:
    fit = lvm.fit(models.GaussianMixture(2, covariance="diag"), ROWS, EM(num_init=1))
    assert parents_of(lvm.model_graph(fit))["assignment"] == ("weights",)
    fit.save(tmp_path / "em", data=False)
    with pytest.raises(ValueError, match="without its data"):
        lvm.model_graph(lvm.load(tmp_path / "em"))
    with pytest.raises(ValueError, match="has its own"):
        lvm.model_graph(fit, ROWS)


def test_a_program_that_leaves_torch_says_so() -> None:
    def numpy_inside(y: Any) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        if type(mu) is not torch.Tensor:  # as a library might that is written in C
            raise TypeError("plain tensors only")
        pyro.sample("obs", dist.Normal(mu, 1.0), obs=y)

    with pytest.raises(ValueError, match="dependencies of numpy_inside cannot be traced"):
        lvm.model_graph(numpy_inside, np.array(0.3))


def test_randomness_is_left_alone() -> None:
    before = torch.get_rng_state()
    lvm.model_graph(schools, SCHOOLS)
    assert torch.equal(torch.get_rng_state(), before)


def test_words_and_html_are_escaped() -> None:
    graph = ModelGraph("<m>", (Node("<b>", "latent", "Normal(0, 1)", (), ("p<",)),), {"p<": 3})
    assert "for each p< (3):" in repr(graph)
    html = graph._repr_html_()
    assert "<b>" not in html
    assert "&lt;b&gt; ~ Normal(0, 1)" in html


# ---- the picture ---------------------------------------------------------------------------------


def node(name: str, parents: str = "", plates: str = "") -> Node:
    return Node(name, "latent", "", tuple(parents.split()), tuple(plates.split()))


def placed(nodes: list[Node], most: float = 7.0) -> Block:
    sizes = {n.name: (0.6, 0.4) for n in nodes}
    labels = {p: (p, 0.3) for n in nodes for p in n.plates}
    return lay_out(nodes, sizes, labels, most)


def edges(block: Block) -> tuple[float, float, float, float]:
    half, tall = block.width / 2, block.height / 2
    return block.x - half, block.x + half, block.y - tall, block.y + tall


def apart(a: Block, b: Block) -> bool:
    (a0, a1, a2, a3), (b0, b1, b2, b3) = edges(a), edges(b)
    return a1 <= b0 or b1 <= a0 or a3 <= b2 or b3 <= a2


LAYOUTS = {
    "chain": [node("a"), node("b", "a"), node("c", "b")],
    "plates": [
        node("a"),
        node("z", "a", "n"),
        node("x", "z", "n"),
        node("b", "", "k"),
        node("y", "b z", "n"),
    ],
    "nested": [node("m"), node("t", "m", "i"), node("x", "t", "i j"), node("y", "x m", "i j")],
    "crossed": [node("a", "", "r"), node("b", "", "c"), node("x", "a b", "c r")],
    "both ways between two plates": [node("a", "", "p"), node("b", "a", "q"), node("c", "b", "p")],
    "wide": [node(f"v{i}") for i in range(25)],
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_blocks_do_not_overlap_and_frames_hold_what_is_theirs(case: str) -> None:
    root = placed(LAYOUTS[case])

    def check(block: Block) -> None:
        left, right, low, high = edges(block)
        for inner in block.inner:
            a, b, c, d = edges(inner)
            assert left - 1e-9 <= a
            assert b <= right + 1e-9
            assert low - 1e-9 <= c
            assert d <= high + 1e-9
            check(inner)
        assert all(apart(a, b) for a, b in combinations(block.inner, 2))

    check(root)
    assert root.width <= 7.0 + 1e-9
    assert {b.node.name for b in root.all() if b.node is not None} == {n.name for n in LAYOUTS[case]}


def test_parents_lie_above() -> None:
    for case in ("chain", "plates", "nested", "crossed"):
        blocks = {b.node.name: b for b in placed(LAYOUTS[case]).all() if b.node is not None}
        for one in LAYOUTS[case]:
            assert all(blocks[p].y > blocks[one.name].y for p in one.parents), case


def test_the_picture_shows_every_site_plate_and_edge() -> None:
    graph = lvm.model_graph(schools, SCHOOLS)
    figure = plots.plot_model(graph)
    texts = {t.get_text() for t in figure.axes[0].texts}
    assert texts == {"mu", "tau", "z", "theta", "obs", "school (3)"}
    arrows = [p for p in figure.axes[0].patches if type(p).__name__ == "FancyArrowPatch"]
    assert len(arrows) == sum(len(n.parents) for n in graph.nodes) == 4


def test_the_picture_refuses_in_words() -> None:
    with pytest.raises(TypeError, match="model_graph"):
        plots.plot_model("schools")
    many = ModelGraph("many", tuple(node(f"v{i}") for i in range(41)), {})
    with pytest.raises(ValueError, match="too many to draw"):
        plots.plot_model(many)


def test_the_graph_plots_itself() -> None:
    make: Callable[[], Any] = lvm.model_graph(schools, SCHOOLS).plot
    assert make().axes
