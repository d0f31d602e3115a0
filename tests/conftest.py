"""What every test runs under: a fixed surrounding, and a check that it leaves global state as it found it."""

import os
import random
import sys
from collections.abc import Generator
from importlib.metadata import version
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]

# Before anything imports torch or JAX. One OpenMP thread: torch on two, beside any other work, spins (a step
# of a VAE took 12 ms of CPU time on one thread, 211 ms on two). Compiled JAX programs are kept between runs,
# small ones too: most of a test's time is compilation (12 s became 2.6 s for four short NUTS runs).
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(REPO / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# XLA's older emitter of CPU code compiles in half the time (a mixture: 6 to 9 s for 17 to 21 s). Later
# releases do not have it, and end the process at a flag they do not know. XLA_FLAGS="" takes the default.
if version("jaxlib").startswith("0.10."):
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")
# float64 has to come from the package's own session, never from the surroundings.
os.environ.pop("JAX_ENABLE_X64", None)

# What a library's state is when it has just been imported: for a test that is the first to import it.
ON_IMPORT = {
    "torch: default dtype": "torch.float32",
    "torch: grad mode": True,
    "pyro: parameter store": (),
    "pyro: open handlers": 0,
    "numpyro: open handlers": 0,
    "jax: jax_enable_x64": False,
}
State = dict[str, object]
RANDOMNESS = ("random: generator", "numpy: generator", "torch: generator")


def _torch_state() -> State:
    torch = sys.modules["torch"]
    state: State = {
        "torch: generator": torch.get_rng_state().numpy().tobytes(),
        "torch: default dtype": str(torch.get_default_dtype()),
        "torch: default device": str(torch.get_default_device()),
        "torch: threads": torch.get_num_threads(),
        "torch: grad mode": torch.is_grad_enabled(),
    }
    if torch.cuda.is_initialized():
        state["torch: generator"] = (state["torch: generator"], torch.cuda.get_rng_state().numpy().tobytes())
    return state


def _pyro_state() -> State:
    pyro = sys.modules["pyro"]
    params = pyro.get_param_store().get_state()["params"]
    state: State = {f"pyro: {name}": value for name, value in pyro.settings.get().items()}
    state["pyro: parameter store"] = tuple(
        (name, tuple(value.shape), value.detach().cpu().numpy().tobytes()) for name, value in params.items()
    )
    state["pyro: open handlers"] = len(sys.modules["pyro.poutine.runtime"]._PYRO_STACK)
    return state


def global_state() -> State:
    """The process-wide state of the libraries that are loaded by now, by entry; imports nothing.

    Values are plain and comparable with ``==``. About 0.1 ms with every library loaded.
    """
    state: State = {"random: generator": random.getstate()}
    if "numpy.random" in sys.modules:
        _, keys, *rest = sys.modules["numpy.random"].get_state()
        state["numpy: generator"] = (keys.tobytes(), *rest)
    if "torch" in sys.modules:
        state |= _torch_state()
    if "pyro" in sys.modules:
        state |= _pyro_state()
    if "jax" in sys.modules:
        state |= {f"jax: {name}": value for name, value in sys.modules["jax"].config.values.items()}
    if {"numpyro.distributions", "numpyro.primitives"} <= set(sys.modules):  # ArviZ 1.x may load a part only
        base = sys.modules["numpyro.distributions"].Distribution
        state["numpyro: validation"] = base._validate_args
        state["numpyro: open handlers"] = len(sys.modules["numpyro.primitives"]._PYRO_STACK)
    return state


def changes(before: State, after: State, exempt: frozenset[str] = frozenset()) -> list[str]:
    """What differs, short values shown; a library that was loaded in between is held to ON_IMPORT."""
    found = []
    for name, value in after.items():
        if name in exempt or (name not in before and name not in ON_IMPORT):
            continue
        earlier = before[name] if name in before else ON_IMPORT[name]
        if value != earlier:
            shown = f"{earlier!r} -> {value!r}"
            found.append(f"{name} ({shown})" if len(shown) < 120 else name)
    return found


@pytest.fixture(autouse=True)
def global_state_untouched(request: pytest.FixtureRequest) -> Generator[None]:
    """Fail a test that leaves random states, dtypes, parameter store, flags or JAX's settings changed."""
    marker = request.node.get_closest_marker("changes_global_state")
    exempt = frozenset(marker.args or RANDOMNESS) if marker else frozenset()
    before = global_state()
    yield
    if left := changes(before, global_state(), exempt):
        pytest.fail(f"the test left global state changed: {'; '.join(left)}", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object]) -> Generator[None, object, object]:
    """The same for fixtures shared by several tests: these are set up before any test's own check begins."""
    if fixturedef.scope == "function":
        return (yield)
    before = global_state()
    value = yield
    if left := changes(before, global_state()):
        pytest.fail(
            f"the fixture {fixturedef.argname!r} left global state changed: {'; '.join(left)}", pytrace=False
        )
    return value


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The reference data (posteriordb, scikit-learn's results): PPL_LVM_DATA, or beside the clone."""
    named = os.environ.get("PPL_LVM_DATA")
    folder = Path(named) if named else REPO.parent / "shared" / "data"
    if folder.is_dir():
        return folder
    if named:
        pytest.fail(f"PPL_LVM_DATA={named!r} is not a folder: correct it or unset it", pytrace=False)
    pytest.skip("the reference data is not part of the repository: set PPL_LVM_DATA to its folder")
