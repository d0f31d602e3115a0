"""Turning draws of loadings to a common orientation: recovered turns, conventions, and a known optimum."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ortho_group

from ppl_lvm import rotation, subspace_angles
from ppl_lvm.core import Rotation

KINDS = ("orthogonal", "signed_permutation", "signs")
Q, D, S = 3, 7, 40


def members(kind: str, num: int, rng: np.random.Generator) -> np.ndarray:
    """Random matrices of the group, (num, q, q)."""
    signs = np.where(rng.random((num, Q)) < 0.5, -1.0, 1.0)
    if kind == "orthogonal":
        return ortho_group.rvs(Q, size=num, random_state=rng).reshape(num, Q, Q)
    orders = [rng.permutation(Q) if kind == "signed_permutation" else np.arange(Q) for _ in range(num)]
    return np.stack([np.eye(Q)[:, order] * sign for order, sign in zip(orders, signs, strict=True)])


@pytest.fixture
def loadings() -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.standard_normal((D, Q)) * np.array([3.0, 2.0, 1.0])


@pytest.mark.parametrize("kind", KINDS)
def test_known_turns_are_undone(kind: str, loadings: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    turns = members(kind, S, rng)
    found = rotation.find_turns(loadings @ turns, loadings, kind)
    np.testing.assert_allclose(turns @ found, np.broadcast_to(np.eye(Q), turns.shape), atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_turned_draws_agree_however_they_were_turned(kind: str, loadings: np.ndarray) -> None:
    """Noisy draws, turned at random, come back to what the same draws give unturned."""
    rng = np.random.default_rng(1)
    draws = loadings + 0.1 * rng.standard_normal((S, D, Q))
    mixed = draws @ members(kind, S, rng)
    results = []
    for values, pivot in ((draws, 0), (mixed, 5)):
        reference = rotation.find_reference(values, kind, pivot)
        results.append(values @ rotation.find_turns(values, reference, kind))
    np.testing.assert_allclose(results[0], results[1], atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_settling_twice_changes_nothing(kind: str, loadings: np.ndarray) -> None:
    rng = np.random.default_rng(2)
    draws = (loadings + 0.3 * rng.standard_normal((S, D, Q))) @ members(kind, S, rng)
    once = draws @ rotation.find_turns(draws, rotation.find_reference(draws, kind, 0), kind)
    again = once @ rotation.find_turns(once, rotation.find_reference(once, kind, 0), kind)
    np.testing.assert_allclose(again, once, atol=1e-9)


def test_turns_are_the_nearest_of_their_group(loadings: np.ndarray) -> None:
    """No member of the group drawn at random brings a matrix nearer."""
    rng = np.random.default_rng(4)
    other = rng.standard_normal((1, D, Q))
    for kind in KINDS:
        best = np.linalg.norm(other[0] @ rotation.find_turns(other, loadings, kind)[0] - loadings)
        tried = np.linalg.norm(other[0] @ members(kind, 2000, rng) - loadings, axis=(1, 2))
        assert (tried >= best - 1e-12).all()


def test_varimax_recovers_simple_structure_and_is_a_maximum() -> None:
    """Each variable loads on one factor: the criterion's maximum is that pattern (Kaiser 1958)."""
    simple = np.kron(np.eye(Q), np.array([[0.9], [0.8], [0.7]]))
    rng = np.random.default_rng(5)
    turned = simple @ members("orthogonal", 1, rng)[0]
    found = rotation.conventional(turned, "orthogonal")
    np.testing.assert_allclose(np.sort(found, axis=1), np.sort(simple, axis=1), atol=1e-7)

    def criterion(w: np.ndarray) -> float:
        squares = (w / np.linalg.norm(w, axis=1, keepdims=True)) ** 2
        return float(squares.var(0).sum())

    general = rng.standard_normal((D, Q))
    best = criterion(rotation.varimax(general))
    assert all(criterion(general @ m) <= best + 1e-9 for m in members("orthogonal", 2000, rng))


def turned_rows(loadings: np.ndarray) -> np.ndarray:
    """Rows at length 1, as Kaiser's normalisation has them; empty ones stay."""
    length = np.linalg.norm(loadings, axis=1, keepdims=True)
    return loadings / np.where(length > 0, length, 1.0)


def slopes(loadings: np.ndarray) -> np.ndarray:
    """Derivatives of the varimax criterion in the angles of all planes, by its textbook formula."""
    rows = turned_rows(loadings)
    gradient = rows.T @ (rows**3 - rows * (rows**2).mean(0))
    return (gradient - gradient.T)[np.tril_indices(rows.shape[1], -1)]


def plane_turns(loadings: np.ndarray, angle: float) -> list[np.ndarray]:
    """The loadings turned by an angle in each plane of two factors, both ways."""
    found = []
    for i, j in np.argwhere(np.tri(loadings.shape[1], k=-1)):
        for way in (angle, -angle):
            out = loadings.copy()
            out[:, i] = np.cos(way) * loadings[:, i] + np.sin(way) * loadings[:, j]
            out[:, j] = np.cos(way) * loadings[:, j] - np.sin(way) * loadings[:, i]
            found.append(out)
    return found


def varimax_criterion(loadings: np.ndarray) -> float:
    return float((turned_rows(loadings) ** 2).var(0).sum())


@pytest.mark.parametrize(("num_columns", "num_factors"), [(6, 2), (20, 5), (64, 8), (40, 12), (60, 26)])
def test_varimax_ends_at_a_maximum_whatever_the_structure(num_columns: int, num_factors: int) -> None:
    """Slopes vanish and no plane turn is better, by steps of either kind (26 factors: projections alone)."""
    rng = np.random.default_rng(num_factors)
    pattern = np.where(np.arange(num_columns)[:, None] % num_factors == np.arange(num_factors), 0.8, 0.0)
    noise = rng.standard_normal((num_columns, num_factors))
    for share in (0.0, 0.2, 1.0):
        mixed = (1.0 - share) * pattern + share * noise
        found = rotation.varimax(mixed @ ortho_group.rvs(num_factors, random_state=rng))
        np.testing.assert_allclose(found @ found.T, mixed @ mixed.T, atol=1e-12 * num_columns)
        # steps end at a gain of 1e-12: projections leave angles off by its root, a Newton step by itself
        assert np.abs(slopes(found)).max() < (1e-8 if num_factors <= 24 else 1e-4)
        best = varimax_criterion(found)
        assert all(varimax_criterion(w) <= best + 1e-12 for w in plane_turns(found, 1e-3))


@pytest.mark.parametrize("num_factors", [2, 3, 8])
def test_varimax_finds_simple_structure_from_any_turn(num_factors: int) -> None:
    rng = np.random.default_rng(8)
    size = rng.uniform(0.4, 1.0, 4 * num_factors)
    simple = np.repeat(np.eye(num_factors), 4, axis=0) * size[:, None]
    for _ in range(20):
        found = rotation.varimax(simple @ ortho_group.rvs(num_factors, random_state=rng))
        np.testing.assert_allclose(np.abs(found).max(1), size, atol=1e-9)
        np.testing.assert_allclose(np.sort(np.abs(found), axis=1)[:, :-1], 0.0, atol=1e-9)


def test_varimax_leaves_a_minimum_and_bears_empty_rows_and_columns() -> None:
    """Balanced loadings start where the criterion is least and flat; turned by 45 degrees they are simple."""
    balanced = np.array([[0.7, 0.7], [0.7, -0.7], [0.6, 0.6], [0.6, -0.6]])
    found = rotation.varimax(balanced)
    np.testing.assert_allclose(np.sort(np.abs(found), axis=1)[:, 0], 0.0, atol=1e-9)
    rng = np.random.default_rng(9)
    for empty in (np.s_[2:], np.s_[:, 1:3], np.s_[:]):
        holed = rng.standard_normal((6, 4))
        holed[empty] = 0.0
        turned = rotation.varimax(holed)
        np.testing.assert_allclose(turned @ turned.T, holed @ holed.T, atol=1e-13)
        assert np.abs(slopes(turned)).max() < 1e-5  # what a gain of 1e-12 leaves


def test_values_turn_along_every_axis_and_products_stay(loadings: np.ndarray) -> None:
    rng = np.random.default_rng(6)
    spec = Rotation("signed_permutation", "w", {"w": (1,), "z": (1,), "c": (0, 1)}, {"scale": (0,)})
    tril = np.tril(rng.standard_normal((S, Q, Q)))
    values = {
        "w": loadings + rng.standard_normal((S, D, Q)),
        "z": rng.standard_normal((S, 5, Q)),
        "scale": rng.random((S, Q)),
        "c": tril @ np.swapaxes(tril, 1, 2),
        "other": rng.random((S, 2)),
    }
    turns = members("signed_permutation", S, rng)
    out = rotation.turn(values, spec, turns)
    for a, b in (("w", "z"), ("w", "w")):
        before = values[a] @ np.swapaxes(values[b], 1, 2)
        np.testing.assert_allclose(out[a] @ np.swapaxes(out[b], 1, 2), before, atol=1e-12)
    variance = lambda v: v["w"] @ v["c"] @ np.swapaxes(v["w"], 1, 2)  # noqa: E731
    np.testing.assert_allclose(variance(out), variance(values), atol=1e-11)
    weighted = lambda v: (v["w"] ** 2 * v["scale"][:, None]).sum(-1)  # noqa: E731
    np.testing.assert_allclose(weighted(out), weighted(values), atol=1e-12)
    assert out["other"] is values["other"]


def test_subspace_angles_do_not_see_turns_and_know_a_plane(loadings: np.ndarray) -> None:
    rng = np.random.default_rng(7)
    turned = loadings @ rng.standard_normal((Q, Q))
    np.testing.assert_allclose(subspace_angles(loadings, turned), np.zeros(Q), atol=1e-7)
    a = np.eye(3)[:, :2]
    b = np.array([[1.0, 0.0], [0.0, np.cos(0.3)], [0.0, np.sin(0.3)]])
    np.testing.assert_allclose(subspace_angles(a, b), [0.3, 0.0], atol=1e-12)
