r"""Mixed data: a different emission for each group of columns, independent given the state."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ppl_lvm.emissions._base import Emission, Library, Values
from ppl_lvm.emissions._priors import Array, Prior
from ppl_lvm.emissions._product_columns import Part, as_groups, find_columns


@dataclass(frozen=True)
class Product(Emission):
    r"""A product over groups of columns, each with its own emission:

    .. math:: p(x_i \mid j) = \prod_g p_g(x_{i, C_g} \mid j), \qquad C_g \text{ a partition of the columns.}

    A site keeps its name where only one group has it; otherwise it gets the group's label, the first column
    of its key, as in ``rate_deaths``. Dimensions over columns are named ``feature_<label>``.

    Parameters
    ----------
    parts
        A mapping from columns to emissions: a key is a column's name, its index, or a tuple of those, as in
        ``{"age": Gaussian(), ("smokes", "drinks"): Bernoulli()}``. Names need data with named columns.
    indices
        The columns of each group by number; filled in by the model when it sees the data.

    Raises
    ------
    TypeError, ValueError
        If an entry is no emission; if a column is in no group, in two, or unknown; if two groups have one
        label.
    """

    parts: Any  # a mapping in, a tuple of (key, emission) once made
    indices: tuple[tuple[int, ...], ...] | None = None

    def __post_init__(self) -> None:
        made = as_groups(self.parts)
        if any(isinstance(part, Product) for _, part in made):
            raise TypeError("Product: got a product inside a product; put its groups into the outer one.")
        object.__setattr__(self, "parts", made)
        if self.indices is not None:
            object.__setattr__(self, "indices", tuple(tuple(int(i) for i in g) for g in self.indices))

    # ---- columns ---------------------------------------------------------------------------------

    def with_columns(self, columns: Sequence[str]) -> Product:
        if self.indices is not None:
            count = sum(len(group) for group in self.indices)
            if count != len(columns):
                raise ValueError(f"x: expected {count} columns as in the fit, got {len(columns)}.")
            return self
        return dataclasses.replace(self, indices=find_columns([key for key, _ in self.parts], columns))

    def coords(self, columns: Sequence[str]) -> dict[str, list[str]]:
        own = {f"feature_{p.label}": [columns[i] for i in p.columns] for p in self._parts()}
        return {"feature": list(columns), **own}

    def _parts(self) -> Iterator[Part]:
        tables = [list(part.sites(1, len(key))) for key, part in self.parts]
        common = Counter(name for table in tables for name in table)
        groups = self.indices
        if groups is None:
            groups = tuple(key for key, _ in self.parts)
            if any(isinstance(column, str) for key in groups for column in key):
                raise ValueError(
                    "Product: columns given by name have no numbers yet; call with_columns(names) first."
                )
        for (key, part), group, table in zip(self.parts, groups, tables, strict=True):
            label = str(key[0])
            names = {name: name if common[name] == 1 else f"{name}_{label}" for name in table}
            yield Part(part, list(group), label, names)

    def _own(self, part: Part, values: Values) -> dict[str, Any]:
        return {own: values[public] for own, public in part.names.items()}

    # ---- data ------------------------------------------------------------------------------------

    def check(self, x: Array, columns: Sequence[str]) -> None:
        for part in self.with_columns(columns)._parts():
            part.emission.check(x[:, part.columns], [columns[i] for i in part.columns])

    def resolve(self, x: Array, num_states: int) -> Product:
        done = [(p, p.emission.resolve(x[:, p.columns], num_states)) for p in self._parts()]
        keys = [key for key, _ in self.parts]
        return Product(
            tuple((key, emission) for key, (_, emission) in zip(keys, done, strict=True)),
            tuple(tuple(p.columns) for p, _ in done),
        )

    @property
    def structure(self) -> Hashable:
        groups = tuple((p.label, tuple(p.columns), p.emission.structure) for p in self._named())
        return type(self).__name__, self.indices is None, groups

    # ---- parameters ------------------------------------------------------------------------------

    def sites(self, num_states: int, num_columns: int) -> dict[str, Prior]:
        table = {}
        for part in self._named():
            for own, site in part.emission.sites(num_states, len(part.columns)).items():
                dims = tuple(name.replace("feature", f"feature_{part.label}") for name in site.dims)
                given = tuple(f"{part.label}.{name}" for name in site.arguments)
                table[part.names[own]] = dataclasses.replace(site, arguments=given, dims=dims)
        return table

    def _named(self) -> Iterator[Part]:
        """The parts where only names and numbers of columns matter: also before columns are found."""
        if self.indices is None:
            places = tuple(tuple(range(len(key))) for key, _ in self.parts)
            return dataclasses.replace(self, indices=places)._parts()
        return self._parts()

    def prior(self, num_states: int, num_columns: int) -> dict[str, Array]:
        return {
            f"{part.label}.{name}": value
            for part in self._parts()
            for name, value in part.emission.prior(num_states, len(part.columns)).items()
        }

    def num_parameters(self, num_states: int, num_columns: int) -> int:
        return sum(p.emission.num_parameters(num_states, len(p.columns)) for p in self._named())

    # ---- densities -------------------------------------------------------------------------------

    def log_prob(self, lib: Library, params: Values, x: Any, seen: Any | None) -> Any:
        total: Any = 0.0
        for part in self._parts():
            columns = np.asarray(part.columns)
            own_seen = None if seen is None else seen[:, columns]
            total = total + part.emission.log_prob(lib, self._own(part, params), x[:, columns], own_seen)
        return total

    def row(self, dist: Any, params: Values, seen: Any | None) -> Any:
        from ppl_lvm.emissions._pyro_columns import Columns

        rows, groups = [], []
        for part in self._parts():
            own_seen = None if seen is None else seen[..., part.columns]
            rows.append(part.emission.row(dist, self._own(part, params), own_seen))
            groups.append(part.columns)
        return Columns(rows, groups)

    # ---- point estimates, draws, summaries ---------------------------------------------------------

    def m_step(
        self, x: Array, seen: Array | None, weights: Array, prior: Values | None, current: Values | None
    ) -> dict[str, Array]:
        out: dict[str, Array] = {}
        for part in self._parts():
            own_prior = None
            if prior is not None:
                start = f"{part.label}."
                names = part.emission.prior(len(weights), len(part.columns))
                own_prior = {name: prior[start + name] for name in names}
            found = part.emission.m_step(
                x[:, part.columns],
                None if seen is None else seen[:, part.columns],
                weights,
                own_prior,
                None if current is None else self._own(part, current),
            )
            out |= {part.names[own]: value for own, value in found.items()}
        return out

    def collapsed(self, params: Values, x: Array, seen: Array | None) -> Array:
        each = [
            p.emission.collapsed(
                self._own(p, params), x[:, p.columns], None if seen is None else seen[:, p.columns]
            )
            for p in self._parts()
        ]
        return np.logical_or.reduce(each)

    def sample(self, params: Values, states: Array, rng: np.random.Generator) -> Array:
        parts = list(self._parts())
        out = np.empty((*states.shape, sum(len(p.columns) for p in parts)))
        for part in parts:
            out[..., part.columns] = part.emission.sample(self._own(part, params), states, rng)
        return out

    def features(self, params: Values) -> Array:
        each = [p.emission.features(self._own(p, params)) for p in self._parts()]
        return np.concatenate(each, axis=-1)

    def moments(self, params: Values) -> tuple[Array, Array]:
        each = [(p.columns, p.emission.moments(self._own(p, params))) for p in self._parts()]
        width = sum(len(columns) for columns, _ in each)
        lead = np.shape(each[0][1][0])[:-1]
        mean, variance = np.empty((*lead, width)), np.empty((*lead, width))
        for columns, (m, v) in each:
            mean[..., columns], variance[..., columns] = m, v
        return mean, variance

    @property
    def finite_variance(self) -> bool:
        return all(part.finite_variance for _, part in self.parts)

    # ---- settings --------------------------------------------------------------------------------

    def to_settings(self) -> dict[str, Any]:
        parts = [[list(key), part.to_settings()] for key, part in self.parts]
        groups = None if self.indices is None else [list(g) for g in self.indices]
        return {"emission": "Product", "settings": {"parts": parts, "indices": groups}}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        return cls(tuple((tuple(key), part) for key, part in settings["parts"]), settings.get("indices"))
