"""The types that everything else leans on: Program, Model, Engine, Evidence, Status.

A *model* says what is believed, an *engine* says how it is computed, a *fit* is what came out
(see :mod:`ppl_lvm.result`). Models know no engine and engines know no concrete model: what passes
between them is a :class:`Problem`, a model bound to data and traced.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    from ppl_lvm.data import Data
    from ppl_lvm.result import Fit

Array = np.ndarray
Values = Mapping[str, Array]
EvidenceKind = Literal["exact", "lower_bound", "upper_bound", "estimate"]


@dataclass(frozen=True)
class Program:
    """A model and, where there is one, its guide: callables of one backend.

    Both take the data by argument name and declare their sites with ``sample``, ``plate`` and
    ``param``. A guide that names an argument ``init`` is given starting values by site name.
    """

    model: Callable[..., Any]
    guide: Callable[..., Any] | None = None


@dataclass(frozen=True)
class Plate:
    """A plate (a set of conditionally independent copies): its name, batch dimension and size."""

    name: str
    dim: int | None
    size: int


@dataclass(frozen=True)
class Site:
    """One statement of a program, as tracing found it.

    ``shape`` is the shape of the whole value, batch dimensions first; the last ``event_dim`` of them
    belong to the distribution. ``plates`` run from the outermost to the innermost. ``enumerable`` sites can
    be summed out, ``local`` ones lie in the data plate, ``proper`` ones can be drawn from.
    """

    name: str
    kind: Literal["latent", "observed", "deterministic", "param"]
    shape: tuple[int, ...]
    event_dim: int
    plates: tuple[Plate, ...]
    discrete: bool = False
    enumerable: bool = False
    support: str = ""
    local: bool = False
    proper: bool = True
    constraint: Any = field(default=None, compare=False, repr=False)

    @property
    def is_factor(self) -> bool:
        """Whether this is a ``factor`` statement: observed, without a value."""
        return self.kind == "observed" and 0 in self.shape

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return self.shape[: len(self.shape) - self.event_dim]


class Exact(Protocol):
    """What a model can do in closed form (NumPy, no probabilistic programming library).

    ``values`` maps site names to arrays with any leading draw dimensions ``...``; ``data`` maps the
    program's argument names to arrays.
    """

    def log_prior(self, values: Values, data: Mapping[str, Any]) -> Array: ...
    def log_likelihood(self, values: Values, data: Mapping[str, Any]) -> Array: ...


@dataclass(frozen=True)
class Rotation:
    """A symmetry of continuous factors: the density is the same for all turned copies of the values.

    ``kind`` says by what they may be turned: any orthogonal matrix ("orthogonal"), a permutation of the
    factors with signs ("signed_permutation"), or signs ("signs"). ``by`` is the site (..., d, q), factors
    last, by which copies are recognised. ``axes`` lists, by site, the event axes (counted from the first)
    that run over factors and turn; ``permuted`` those that are reordered but keep their sign. ``units``
    names the site of the noise sds, (d,) or a number: distances between loadings are measured in sds of the
    variables.
    """

    kind: Literal["orthogonal", "signed_permutation", "signs"]
    by: str
    axes: Mapping[str, tuple[int, ...]]
    permuted: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    units: str | None = None


class AbstractModel(ABC):
    """What an engine may ask of a model. A capability is an attribute that is not None.

    Two kinds exist: :class:`Model`, which wraps the user's own functions, and the models of the zoo,
    frozen dataclasses of hyperparameters. Both go through the same code path; a model of the zoo only
    adds what tracing cannot know (a twin, exact parts, symmetries, names of dimensions).
    """

    @property
    @abstractmethod
    def pyro(self) -> Program: ...

    @property
    def numpyro(self) -> Program | None:
        return None

    @property
    def exact(self) -> Any | None:
        return None

    @property
    def data_plate(self) -> str | None:
        """Name of the plate over data; None lets tracing choose the outermost shared one."""
        return None

    @property
    def batched(self) -> tuple[str, ...] | None:
        """Arguments whose leading dimension is the data plate's; None lets their length decide."""
        return None

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Names of the event dimensions by site name."""
        return {}

    @property
    def keep_latents(self) -> bool:
        """Whether draws of local latents that were summed out are added to ``Fit.posterior``."""
        return False

    @property
    def fixed_params(self) -> Mapping[str, Array]:
        """Values at which ``pyro.param`` statements are held (see :func:`ppl_lvm.condition`)."""
        return {}

    def label_features(self, values: Values) -> Array:
        """Real coordinates (..., k, f) by which labels are recognised (see :mod:`ppl_lvm.relabel`)."""
        raise ValueError(f"{self.describe()} has no exchangeable labels.")

    @property
    def held_sites(self) -> tuple[str, ...]:
        """Latent sites held at given values: everything is conditional on them."""
        return ()

    @property
    def label_axes(self) -> Mapping[str, tuple[int, ...]] | None:
        """Axes of each site indexed by exchangeable labels (mixtures, HMMs); None: no such symmetry."""
        return None

    @property
    def rotation(self) -> Rotation | None:
        """The turns of its factors that leave the model the same (factor models); None: no such symmetry."""
        return None

    @property
    def internal_sites(self) -> tuple[str, ...]:
        """Sites that only parametrise another quantity: kept in the posterior, left out of tables."""
        return ()

    def num_data(self, data: Data) -> int | None:
        """Number of data, where the program has no plate over them (sufficient statistics)."""
        return None

    def observations(self, data: Data) -> dict[str, Array] | None:
        """Observed values by site, NaN where missing; None takes them from the program's own sites."""
        return None

    def fingerprint(self, data: Data) -> dict[str, Array] | None:
        """Arrays that tell data sets apart where data may come as statistics; None: the values themselves."""
        return None

    @property
    def label_note(self) -> str:
        """What a bound or estimate of the evidence must say of its labels, where they are not symmetric."""
        return ""

    @property
    def invariants(self) -> Callable[[Values], dict[str, Array]] | None:
        """Quantities that the model's symmetries leave alone, as a function of values by site."""
        return None

    @property
    def cache_key(self) -> Any | None:
        """A hashable that identifies the twin's structure, for reuse of compiled functions."""
        return None

    @property
    def only_backend(self) -> str | None:
        """The one backend on which the programs have gradients (a user's networks); None: both."""
        return None

    @property
    def default_dtype(self) -> str | None:
        """The dtype of a fit that asks for none; None: float32 for programs with networks, else float64."""
        return None

    @property
    def trains_by_epochs(self) -> bool:
        """Whether SVI trains the model by epochs (networks, all latents local) without being asked to."""
        return False

    def blank_rows(self, num: int) -> Any | None:
        """Data of ``num`` rows that only have the right shapes; None where the model does not know them."""
        return None

    def initial_params(
        self, arguments: Mapping[str, Any], rng: np.random.Generator
    ) -> dict[str, Array] | None:
        """Where training of the params starts, by name; None: where the programs' own statements do."""
        return None

    def resampled(self, data: Data) -> Mapping[str, Array]:
        """Arguments that hold probabilities of 1, from which each epoch of a training draws 0 and 1 anew."""
        return {}

    @abstractmethod
    def describe(self) -> str:
        """One line for tables and reports."""

    def same_as(self, other: AbstractModel) -> bool:
        """Whether both are one model: the same kind, program and (for the zoo) prior numbers."""
        mine, theirs = self.to_settings(), other.to_settings()
        return type(self) is type(other) and mine == theirs and self.describe() == other.describe()

    @abstractmethod
    def bind(self, raw: Any, *, fitting: bool = True) -> Data:
        """Check raw data and give them argument names. ``fitting=False`` for data to predict at."""

    def resolve(self, data: Any) -> AbstractModel:
        """This model with every number that depends on the data filled in."""
        return self

    def arguments(self, data: Data) -> dict[str, Any]:
        """The keyword arguments of the programs."""
        return dict(data.values)

    def to_settings(self) -> dict[str, Any] | None:
        """Settings from which a saved fit rebuilds the model; None if only code can."""
        return None


@dataclass(frozen=True)
class Model(AbstractModel):
    """A user's own program: a plain Pyro function, with a guide and a twin where there are any.

    Parameters
    ----------
    function
        The Pyro model, a callable of the data by name (or a :class:`Program`).
    guide
        A Pyro guide with the same arguments.
    numpyro
        A NumPyro model (or a :class:`Program` of one and its guide) with the same arguments and the
        same continuous latent sites.
    invariants
        A function of the posterior's values (arrays by site name, draws leading) that returns
        quantities to compare beside the raw sites.
    data_plate, batched, dims
        What tracing cannot tell: the plate over data, the arguments that run along it, and names of
        event dimensions by site.
    """

    function: Callable[..., Any] | Program
    guide: Callable[..., Any] | None = None
    numpyro: Program | Callable[..., Any] | None = None  # type: ignore[assignment]  # see __post_init__
    invariants: Callable[[Values], dict[str, Array]] | None = None
    data_plate: str | None = None
    batched: tuple[str, ...] | None = None
    dims: Mapping[str, tuple[str, ...]] | None = None  # type: ignore[assignment]  # {} in __post_init__

    def __post_init__(self) -> None:
        function: Any = self.function
        guide = self.guide
        if isinstance(function, Program):
            function, guide = function.model, guide or function.guide
        for name, value in (("function", function), ("guide", guide)):
            if value is not None and not callable(value):
                raise TypeError(f"Model({name}=...): expected a callable, got {type(value).__name__}.")
        twin: Any = self.numpyro
        if twin is not None and not isinstance(twin, Program):
            if not callable(twin):
                raise TypeError(
                    f"Model(numpyro=...): expected a NumPyro function, got {type(twin).__name__}."
                )
            twin = Program(twin)
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "guide", guide)
        object.__setattr__(self, "numpyro", twin)
        object.__setattr__(self, "dims", dict(self.dims or {}))
        if self.batched is not None:
            object.__setattr__(self, "batched", tuple(self.batched))

    @property
    def pyro(self) -> Program:
        return Program(self.function, self.guide)  # type: ignore[arg-type]  # unwrapped in __post_init__

    @property
    def cache_key(self) -> Any | None:
        return self.numpyro

    def describe(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)

    def same_as(self, other: AbstractModel) -> bool:
        return isinstance(other, Model) and self.function is other.function

    def bind(self, raw: Any, *, fitting: bool = True) -> Data:
        from ppl_lvm.data import bind_arguments

        return bind_arguments(raw, self.pyro.model, name=self.describe())


def as_model(model: Any) -> AbstractModel:
    """A model as it is, or a plain Pyro function wrapped in a :class:`Model`."""
    if isinstance(model, AbstractModel):
        return model
    if isinstance(model, type) and issubclass(model, AbstractModel):
        raise TypeError(f"model: got the class {model.__name__}; call it with its settings first.")
    if callable(model):
        return Model(model)
    raise TypeError(
        "model: expected a Pyro function, an lvm.Model or a model of ppl_lvm.models, "
        f"got {type(model).__name__}."
    )


@dataclass(frozen=True)
class Evidence:
    """The log evidence log p(x) of the whole data set, in nats, or a bound or estimate of it.

    ``kind`` says which; ``std_error`` is the Monte Carlo standard error (0 where there is none);
    ``conditional_on`` names the parameters that the value is conditional on (empty: none).
    """

    kind: EvidenceKind
    nats: float
    std_error: float
    conditional_on: tuple[str, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        kinds = ("exact", "lower_bound", "upper_bound", "estimate")
        if self.kind not in kinds:
            raise ValueError(f"kind: expected one of {kinds}, got {self.kind!r}.")

    def interval(self, num_errors: float = 2.0) -> tuple[float, float]:
        """Where log p(x) lies, as far as this value tells: infinite on a bound's open side."""
        low, high = self.nats - num_errors * self.std_error, self.nats + num_errors * self.std_error
        if self.kind == "lower_bound":
            return low, np.inf
        if self.kind == "upper_bound":
            return -np.inf, high
        return low, high

    def __str__(self) -> str:
        sign = {"exact": "=", "lower_bound": ">=", "upper_bound": "<=", "estimate": "~"}[self.kind]
        names = dict.fromkeys(n.partition("$$$")[0] for n in self.conditional_on)  # a network counts as one
        given = f" given {', '.join(names)}" if names else ""
        return f"log p(x){given} {sign} {self.nats:.2f} +- {self.std_error:.2f} nats"


class Outcome(enum.Enum):
    """How a run ended; the value is the advice."""

    OK = "finished as asked"
    CONVERGED = "the stopping rule was met"
    MAX_STEPS = "the steps ran out before the stopping rule was met: raise the number of steps"
    DIVERGENT = "some transitions diverged: raise target_accept, or reparametrise the model"
    UNRELIABLE = "the importance weights are too uneven to trust: fit a better proposal"
    FAILED = "the compiled density disagrees with Pyro's at the draws: do not use them"
    INTERRUPTED = "stopped by the user before the end: this is the state it had reached"
    DEGENERATE = "a component collapsed onto few points: fewer components, or a prior (estimate='map')"


@dataclass(frozen=True)
class Status:
    """How a run ended, in one outcome, figures and sentences."""

    outcome: Outcome = Outcome.OK
    details: Mapping[str, float] = field(default_factory=dict)
    messages: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.outcome in (Outcome.OK, Outcome.CONVERGED)

    def __str__(self) -> str:
        figures = ", ".join(f"{k}={v:g}" for k, v in self.details.items())
        text = f"{self.outcome.name.lower()}: {self.outcome.value}" + (f" ({figures})" if figures else "")
        return "; ".join([text, *self.messages])


@dataclass(frozen=True)
class Problem:
    """A resolved model bound to data and traced: what an engine is given.

    ``arguments`` are the programs' keyword arguments as NumPy arrays at the fit's dtype (or static
    Python values); ``num_data`` is the size of the data plate, None where there is none. ``notes`` is what a
    backend keeps for the time of one fit (a translation and its check).
    """

    model: AbstractModel
    data: Data
    arguments: Mapping[str, Any]
    sites: Mapping[str, Site]
    data_plate: str | None
    num_data: int | None
    max_plate_nesting: int
    dtype: str
    dims: Mapping[str, tuple[str, ...]]
    coords: Mapping[str, Any]
    batched: tuple[str, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def latents(self, *, discrete: bool | None = None) -> list[Site]:
        return [s for s in self.sites.values() if s.kind == "latent" and discrete in (None, s.discrete)]

    @property
    def params(self) -> tuple[str, ...]:
        return tuple(s.name for s in self.sites.values() if s.kind == "param")


@dataclass(frozen=True)
class Run:
    """What ``fit`` hands to an engine besides the problem: seed, starting point and progress."""

    seed: int
    init: Any = None
    progress: bool = False

    def word(self, stream: int) -> int:
        """A 31-bit seed for a library's own generator; seeds that share their low bits differ."""
        return int(np.random.SeedSequence([self.seed, stream]).generate_state(1)[0] >> 1)

    def rng(self, stream: int = 0) -> np.random.Generator:
        """A NumPy generator; different streams of one seed are independent."""
        return np.random.default_rng([self.seed, stream])


@dataclass(frozen=True)
class Engine(ABC):
    """A frozen dataclass of settings and an algorithm. See docs/add-an-engine."""

    @abstractmethod
    def check(self, problem: Problem) -> str | None:
        """Why this engine cannot take the problem, with the alternative; None if it can."""

    @abstractmethod
    def run(self, problem: Problem, run: Run) -> Fit:
        """The algorithm. Seeding, isolation, dtype, timing and validation are ``fit``'s work."""

    def backend_for(self, problem: Problem) -> str:
        """The backend that a run would use: "pyro", "numpyro" or "exact"."""
        return getattr(self, "backend", "exact")

    def unsupported(self, model: Any, data: Any) -> str | None:
        """Why this engine cannot take this model with these data; None if it can."""
        from ppl_lvm.fitting import prepare

        return self.check(prepare(model, data))
