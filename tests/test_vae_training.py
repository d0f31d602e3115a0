"""VAE: training by epochs. Resuming, stopping, schedules, validation, faults; fits on disk and as ArviZ."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from vae_cases import TINY, data_for, digits

import ppl_lvm as lvm
from ppl_lvm import ELBO, NUTS, SVI, Annealing, Renyi, models, networks
from ppl_lvm.engines._checkpoint import Checkpoint
from ppl_lvm.engines._schedules import learning_rates, weights_at

BACKENDS = ("numpyro", "pyro")
MODEL = models.VAE(latent_dim=2, encoder=TINY, decoder=TINY)
REPO = Path(__file__).resolve().parents[1]


def train(backend: str, x: np.ndarray | None = None, **settings: object) -> lvm.Fit:
    x = data_for("bernoulli", n=60) if x is None else x
    model = settings.pop("model", MODEL)
    engine = SVI(**{"backend": backend, "batch_size": 16, "num_epochs": 6, **settings})
    return lvm.fit(model, x, engine, seed=3)


def same(a: lvm.Fit, b: lvm.Fit) -> bool:
    return set(a.params) == set(b.params) and all((a.params[n] == b.params[n]).all() for n in a.params)


# ---- resume ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "objective", [ELBO(), pytest.param(Renyi(num_particles=3), marks=pytest.mark.slow)], ids=["elbo", "iwae"]
)
def test_a_resumed_run_is_the_undisturbed_one(backend: str, objective: object, tmp_path: Path) -> None:
    whole = train(backend, objective=objective, validation=0.2)
    train(backend, objective=objective, validation=0.2, num_epochs=2, checkpoint=tmp_path)
    resumed = train(backend, objective=objective, validation=0.2, checkpoint=tmp_path)
    assert same(whole, resumed)
    np.testing.assert_array_equal(whole.groups["training"]["bound"], resumed.groups["training"]["bound"])
    again = train(backend, objective=objective, validation=0.2, checkpoint=tmp_path)
    assert same(whole, again)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    train("pyro", checkpoint=tmp_path, num_epochs=1)
    for changed in (
        {"learning_rate": 0.5},
        {"batch_size": 10},
        {"objective": Renyi()},
        {"backend": "numpyro"},
    ):
        with pytest.raises(ValueError, match=r"holds another run .*" + next(iter(changed))):
            train(**{"backend": "pyro", "checkpoint": tmp_path, **changed})
    with pytest.raises(ValueError, match=r"holds another run .*data"):
        train("pyro", data_for("bernoulli", n=60, seed=9), checkpoint=tmp_path)
    decayed = {"learning_rate_decay": 0.1, "checkpoint": tmp_path / "decayed"}
    train("pyro", num_epochs=1, **decayed)
    with pytest.raises(ValueError, match="num_epochs"):  # the step sizes of a longer run are others
        train("pyro", num_epochs=2, **decayed)


def test_damaged_checkpoints_and_unwritable_folders_are_said(tmp_path: Path) -> None:
    train("pyro", checkpoint=tmp_path, num_epochs=1)
    path = tmp_path / "checkpoint.safetensors"
    content = path.read_bytes()
    for damaged in (b"", content[:40], content[:-7], b"\x00" * len(content), b"not a checkpoint"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged"):
            train("pyro", checkpoint=tmp_path)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ValueError, match="cannot write"):
        train("pyro", checkpoint=file / "below")


def test_a_full_disk_leaves_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = train("pyro", num_epochs=3)
    saves = []
    original = os.replace

    def full(source: str, target: str) -> None:
        saves.append(target)
        if len(saves) > 1:
            raise OSError(28, "No space left on device")
        original(source, target)

    monkeypatch.setattr(os, "replace", full)
    fit = train("pyro", num_epochs=3, checkpoint=tmp_path)
    assert same(whole, fit)
    assert "could not be written" in caplog.text
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.safetensors"]
    assert same(whole, train("pyro", num_epochs=3, checkpoint=tmp_path))  # goes on after the first epoch


RUN = """
    import sys
    sys.path.insert(0, {tests!r})
    import numpy as np
    import ppl_lvm as lvm
    from test_vae_training import train
    from vae_cases import data_for
    x = data_for("bernoulli", n=2000)
    fit = train({backend!r}, x, num_epochs=12, batch_size=20, checkpoint=sys.argv[1])
    np.savez(sys.argv[2], **fit.params)
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_killed_in_the_middle_and_resumed_to_the_same_bits(backend: str, tmp_path: Path) -> None:
    code = textwrap.dedent(RUN.format(tests=str(REPO / "tests"), backend=backend)).replace(
        ", progress=False", ""
    )
    env = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}

    def start(folder: str, out: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / folder), str(tmp_path / out)], env=env
        )

    assert start("whole", "whole.npz").wait(600) == 0
    checkpoint = tmp_path / "cut" / "checkpoint.safetensors"
    for kill in range(3):
        process = start("cut", "cut.npz")
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and process.poll() is None:
            if checkpoint.exists() and checkpoint.stat().st_mtime_ns != before:
                break
            time.sleep(0.002)
        time.sleep(0.003 * (kill + 1))  # somewhere inside a later epoch
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    assert start("cut", "cut.npz").wait(600) == 0
    whole, cut = np.load(tmp_path / "whole.npz"), np.load(tmp_path / "cut.npz")
    assert set(whole.files) == set(cut.files)
    assert all((whole[n] == cut[n]).all() for n in whole.files)


@pytest.mark.parametrize("backend", BACKENDS)
def test_ctrl_c_gives_what_is_there(backend: str) -> None:
    handler = signal.getsignal(signal.SIGINT)
    train(backend, num_epochs=1)  # compiled before the clock starts
    timer = threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    fit = train(backend, num_epochs=200_000)
    timer.cancel()
    assert fit.status.outcome is lvm.Outcome.INTERRUPTED
    assert not fit.status.ok
    assert 0 < fit.status.details["epochs"] < 200_000
    assert np.isfinite(fit.evidence.nats)
    assert signal.getsignal(signal.SIGINT) is handler


# ---- faults ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_stops_with_step_rows_and_advice(backend: str, tmp_path: Path) -> None:
    x = data_for("gaussian", n=60)
    x[17] = 1e30  # its square overflows in float32
    model = models.VAE(latent_dim=2, likelihood="gaussian", noise_scale=1.0, encoder=TINY, decoder=TINY)
    with pytest.raises(ValueError, match=r"NaN or infinite at step \d+ of epoch 1 \(rows .*lower learning"):
        train(backend, x, model=model)
    good = data_for("gaussian", n=60)
    with pytest.raises(ValueError, match="last good checkpoint stays") as caught:
        train(backend, good, model=model, learning_rate=1e18, checkpoint=tmp_path, num_epochs=50)
    assert "epoch" in str(caught.value)


BAD = {
    "grey levels": ({"x": "grey"}, {}, "continuous_bernoulli.*binarise"),
    "bytes": ({"x": "bytes"}, {}, "divide grey levels"),
    "negative counts": ({"x": "gaussian", "likelihood": "poisson"}, {}, "counts"),
    "a column": ({"x": "column"}, {}, r"x\[:, None\]"),
    "nan": ({"x": "nan"}, {}, "NaN"),
    "few categories": (
        {"x": "categorical", "likelihood": "categorical", "num_categories": 2},
        {},
        "num_categories",
    ),
    "flat rows and convolutions": ({"x": "flat", "encoder": "conv"}, {}, "height, width"),
    "small images": ({"x": "small", "encoder": "conv"}, {}, "too small"),
    "patience alone": ({}, {"patience": 2}, "validation"),
    "enumeration": ({}, {"objective": ELBO(estimator="enum")}, "estimator"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_words(name: str) -> None:
    changes, settings, message = BAD[name]
    kinds = {
        "grey": data_for("continuous_bernoulli"),
        "bytes": 255 * data_for("bernoulli"),
        "gaussian": data_for("gaussian"),
        "column": np.zeros(5),
        "nan": np.full((5, 4), np.nan),
        "categorical": data_for("categorical"),
        "flat": np.zeros((5, 30)),
        "small": np.zeros((5, 3, 3)),
    }
    changes = dict(changes)
    x = kinds.get(changes.pop("x", ""), data_for("bernoulli"))
    with pytest.raises((ValueError, TypeError), match=message):
        lvm.fit(models.VAE(**changes), x, SVI(num_epochs=1, batch_size=5, **settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latent_dim": 0}, "latent_dim"),
        ({"likelihood": "cauchy"}, "likelihood"),
        ({"posterior": "planar"}, "posterior"),
        ({"encoder": "lstm"}, "encoder"),
        ({"noise_scale": 1.0}, "noise_scale"),
        ({"likelihood": "gaussian", "noise_scale": -1.0}, "noise_scale"),
        ({"binarise": True, "likelihood": "poisson"}, "binarise"),
        ({"num_categories": 3}, "num_categories"),
        ({"binarise": 1}, "binarise"),
    ],
)
def test_bad_settings_name_the_field(settings: dict, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        models.VAE(**settings)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: networks.MLP((0,)), "hidden"),
        (lambda: networks.MLP(activation="swish"), "activation"),
        (lambda: networks.Conv(channels=()), "channels"),
        (lambda: networks.Conv(kernel_size=4), "kernel_size"),
        (lambda: ELBO(beta=-1.0), "beta"),
        (lambda: ELBO(free_bits=float("nan")), "free_bits"),
        (lambda: Renyi(alpha=0.5, gradient="doubly_reparameterised"), "alpha=0"),
        (lambda: Annealing("sigmoid"), "kind"),
        (lambda: SVI(validation=1.5), "validation"),
        (lambda: SVI(schedule="step"), "schedule"),
        (lambda: SVI(checkpoint=3), "checkpoint"),
    ],
)
def test_bad_settings_of_networks_and_training_name_the_field(build: object, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        build()


def test_settings_of_trainings_are_refused_for_other_models() -> None:
    import pyro
    import pyro.distributions as dist

    def simple(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("obs", dist.Normal(mu, 1.0), obs=x)

    for settings in ({"validation": 0.1}, {"warmup_steps": 5}, {"objective": ELBO(beta=2.0)}):
        with pytest.raises(ValueError, match="trainings by epochs"):
            lvm.fit(simple, np.zeros(5), SVI(num_steps=10, **settings))


# ---- schedules, validation, binarisation ---------------------------------------------------------------


def test_schedules_are_what_they_say() -> None:
    for schedule in ("exponential", "cosine", "linear"):
        rates = learning_rates(0.1, 0.01, schedule, 0, 0, 101, 101)
        assert rates[0] == pytest.approx(0.1)
        assert rates[-1] == pytest.approx(0.001)
        assert (np.diff(rates) < 0).all()
    assert learning_rates(0.1, 0.01, "exponential", 0, 50, 1, 101)[0] == pytest.approx(0.01)
    assert learning_rates(0.1, 0.01, "linear", 0, 50, 1, 101)[0] == pytest.approx(0.0505)
    warm = learning_rates(0.1, 1.0, "cosine", 10, 0, 20, 100)
    np.testing.assert_allclose(warm, 0.1 * np.minimum(1, np.arange(1, 21) / 10))
    split = [learning_rates(0.1, 0.2, "cosine", 5, first, 10, 30) for first in (0, 10, 20)]
    np.testing.assert_array_equal(np.concatenate(split), learning_rates(0.1, 0.2, "cosine", 5, 0, 30, 30))
    np.testing.assert_allclose(weights_at(Annealing("linear", 0, 1, 4), 1, 4), [0.25, 0.3125, 0.375, 0.4375])
    np.testing.assert_allclose(weights_at(Annealing("linear", 0, 1, 4), 9, 3), 1)
    np.testing.assert_allclose(weights_at(Annealing("cyclical", 0, 2, 10, 0.5), 12, 2), [0.8, 1.0])
    np.testing.assert_allclose(weights_at(Annealing("cyclical", 0, 2, 10, 0.5), 17, 2), 2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_objective_is_made_of_its_parts(backend: str) -> None:
    fit = train(backend, objective=ELBO(beta=Annealing(num_epochs=4)), num_epochs=6)
    parts = fit.groups["training"]
    np.testing.assert_allclose(parts["bound"], parts["log_lik"] - parts["kl"], rtol=1e-5)
    late = parts.sel(epoch=slice(5, None))
    np.testing.assert_allclose(late["objective"], late["bound"], rtol=1e-6)
    assert (parts["objective"].values[:3] > parts["bound"].values[:3]).all()
    free = train(backend, objective=ELBO(free_bits=0.5), num_epochs=2).groups["training"]
    assert (free["objective"] <= free["log_lik"] - 2 * 0.5 + 1e-4).all()  # two dimensions


@pytest.mark.parametrize("backend", BACKENDS)
def test_early_stopping_keeps_the_best_epoch(backend: str) -> None:
    """A network large enough to learn sixty images by heart gets worse on others."""
    big = networks.MLP((200,))
    model = models.VAE(latent_dim=8, encoder=big, decoder=big)
    fit = train(backend, model=model, num_epochs=300, validation=0.3, patience=5, learning_rate=0.01)
    seen = fit.groups["training"]["validation_bound"].values
    best = int(fit.status.details["best_epoch"])
    assert fit.status.outcome is lvm.Outcome.CONVERGED
    assert len(seen) == best + 5
    assert seen.argmax() == best - 1
    assert fit.status.details["validation_bound"] == pytest.approx(seen.max())


@pytest.mark.parametrize("backend", BACKENDS)
def test_grey_levels_are_drawn_anew_in_each_epoch(backend: str) -> None:
    """Pixels that are 1 with probability 1/2: nothing can be learned by heart.

    With one fixed draw of eight images a network reaches a bound far above -30 log 2; with a new draw in
    each epoch the best is -30 log 2 itself.
    """
    grey = np.full((8, 5, 6), 0.5)
    big = networks.MLP((64,))
    settings = {"batch_size": 8, "num_epochs": 400, "learning_rate": 0.01}
    dynamic = models.VAE(latent_dim=2, encoder=big, decoder=big, binarise=True)
    drawn = train(backend, grey, model=dynamic, **settings)
    static = models.VAE(latent_dim=2, encoder=big, decoder=big)
    fixed = train(backend, data_for("bernoulli", n=8), model=static, **settings)
    last = slice(300, None)
    assert drawn.groups["training"]["bound"].values[last].mean() == pytest.approx(-30 * np.log(2), abs=2.0)
    assert fixed.groups["training"]["bound"].values[last].mean() > -30 * np.log(2) + 4
    assert set(np.unique(drawn.problem.arguments["x"])) == {0.0, 1.0}


# ---- fits ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted() -> lvm.Fit:
    return train("numpyro", digits()[0][:300], num_epochs=15)


def test_a_fit_answers_in_the_right_shapes(fitted: lvm.Fit) -> None:
    x = digits()[0][300:320]
    mean, sd = fitted.transform(x, return_std=True)
    assert mean.shape == sd.shape == (20, 2)
    assert (sd > 0).all()
    assert fitted.reconstruct(x).shape == x.shape
    assert fitted.reconstruct(x, num_draws=5).shape == x.shape
    assert fitted.inverse_transform(mean).shape == x.shape
    np.testing.assert_allclose(fitted.inverse_transform(mean), fitted.reconstruct(x), rtol=1e-4, atol=1e-6)
    assert set(np.unique(fitted.sample(30, seed=1))) == {0.0, 1.0}
    assert fitted.sample(4, mean=True).shape == (4, 8, 8)
    assert fitted.latents(x, num_draws=7)["z"].shape == (1, 7, 20, 2)
    assert fitted.score_samples(x, num_particles=50).shape == (20,)
    assert fitted.sample_predictive(num_draws=3)["obs"].shape == (1, 3, 300, 8, 8)
    with pytest.raises(ValueError, match="encode"):
        _ = fitted.posterior
    with pytest.raises(ValueError, match=r"shape \(m, 2\)"):
        fitted.inverse_transform(np.zeros((3, 5)))


def test_means_and_draws_of_q_agree(fitted: lvm.Fit) -> None:
    x = digits()[0][:15]
    mean, sd = fitted.transform(x, return_std=True)
    drawn = fitted.encode(x, num_draws=3000).posterior["z"].values[0]
    assert np.abs((drawn.mean(0) - mean) / (sd / np.sqrt(3000))).max() < 5
    np.testing.assert_allclose(drawn.std(0), sd, rtol=0.08)


@pytest.mark.slow
def test_the_encoding_is_compared_with_the_posterior(fitted: lvm.Fit) -> None:
    x = digits()[0][:3]
    post = lvm.fit(lvm.condition(fitted.model, fitted), x, NUTS(num_warmup=300, num_samples=500), seed=0)
    encoded = fitted.encode(x)
    assert post.posterior["z"].dims == encoded.posterior["z"].dims == ("chain", "draw", "data", "latent")
    result = lvm.compare({"encoder": encoded, "nuts": post}, reference="nuts")
    assert set(result.table.loc["encoder"].index) == {f"z[{i}, {j}]" for i in range(3) for j in range(2)}
    assert encoded.evidence.kind == "lower_bound"


def test_saved_and_loaded_in_either_backend(fitted: lvm.Fit, tmp_path: Path) -> None:
    x = digits()[0][300:310]
    fitted.save(tmp_path / "fit")
    again = lvm.load(tmp_path / "fit")
    np.testing.assert_array_equal(again.transform(x), fitted.transform(x))
    alone = lvm.load(fitted.save(tmp_path / "alone", data=False))
    np.testing.assert_array_equal(alone.transform(x), fitted.transform(x))
    assert alone.sample(3).shape == (3, 8, 8)
    # what JAX trained goes on in Pyro, from where it was
    more = lvm.fit(
        fitted.model, digits()[0][:300], SVI(backend="pyro", batch_size=16, num_epochs=2), init=again
    )
    first, last = more.groups["training"]["bound"].values[0], fitted.groups["training"]["bound"].values[-1]
    assert first > last - 1.0
    with pytest.raises(ValueError, match="shape"):
        lvm.fit(models.VAE(latent_dim=3, encoder=TINY, decoder=TINY), digits()[0][:300],
                SVI(num_epochs=1, batch_size=16), init=again)  # fmt: skip


def test_arviz_has_the_encoding(fitted: lvm.Fit) -> None:
    tree = fitted.encode(digits()[0][:5]).to_arviz()
    assert tree["posterior"]["z"].shape == (1, 1000, 5, 2)
    assert "observed_data" in tree.children


@pytest.mark.changes_global_state("torch: generator")  # torch draws the modules' first weights
def test_a_torch_module_is_trained_on_pyro_and_given_back() -> None:
    import torch

    encoder = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(30, 6), torch.nn.Tanh(), torch.nn.Linear(6, 4)
    )

    class Decoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(2, 30)

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return self.layer(z).reshape(*z.shape[:-1], 5, 6)

    decoder = Decoder()
    before = {n: p.detach().clone() for n, p in decoder.named_parameters()}
    model = models.VAE(latent_dim=2, encoder=encoder, decoder=decoder)
    fit = train("auto", model=model, num_epochs=10, learning_rate=0.01)
    assert fit.backend == "pyro"
    assert all((before[n] == p).all() for n, p in decoder.named_parameters())
    assert not np.allclose(fit.params["decoder$$$layer.weight"], before["layer.weight"].numpy())
    assert fit.transform(data_for("bernoulli")).shape == (11, 2)
    with pytest.raises(ValueError, match="torch modules"):
        train("numpyro", model=model)
    held = lvm.condition(fit.model, fit)  # translated
    post = lvm.fit(held, data_for("bernoulli", n=2), NUTS(num_warmup=50, num_samples=50, num_chains=1))
    assert post.backend == "numpyro"
    with pytest.raises(ValueError, match="running statistics"):
        models.VAE(encoder=torch.nn.Sequential(torch.nn.BatchNorm1d(3)), decoder=decoder)


@pytest.mark.changes_global_state("torch: generator")
def test_an_equinox_module_is_trained_on_jax() -> None:
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    class Encoder(eqx.Module):
        layer: eqx.nn.Linear

        def __call__(self, x: jax.Array) -> jax.Array:
            return jax.vmap(self.layer)(x.reshape(len(x), -1))

    class Decoder(eqx.Module):
        weight: jax.Array

        def __call__(self, z: jax.Array) -> jax.Array:
            return jnp.tanh(z @ self.weight).reshape(*z.shape[:-1], 5, 6)

    encoder = Encoder(eqx.nn.Linear(30, 4, key=jax.random.key(0)))
    decoder = Decoder(jax.random.normal(jax.random.key(1), (2, 30)))
    model = models.VAE(latent_dim=2, encoder=encoder, decoder=decoder)
    fit = train("auto", model=model, num_epochs=10, learning_rate=0.01)
    assert fit.backend == "numpyro"
    assert set(fit.params) == {"encoder$$$layer.weight", "encoder$$$layer.bias", "decoder$$$weight"}
    assert not np.allclose(fit.params["decoder$$$weight"], decoder.weight)
    assert fit.sample_predictive(num_draws=2)["obs"].shape == (1, 2, 60, 5, 6)
    with pytest.raises(ValueError, match="equinox modules"):
        train("pyro", model=model)
    import torch

    with pytest.raises(TypeError, match="one library"):
        models.VAE(encoder=torch.nn.Linear(2, 2), decoder=decoder)


def test_svi_without_settings_trains() -> None:
    fit = lvm.fit(MODEL, data_for("bernoulli", n=300), SVI(num_steps=30))
    assert fit.engine.batch_size == 128
    assert fit.status.details["epochs"] == 15


# ---- files ---------------------------------------------------------------------------------------------


def test_mnist_is_read_from_both_formats(tmp_path: Path) -> None:
    import gzip

    from ppl_lvm.data import load_mnist

    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 256, (5, 28, 28), dtype=np.uint8),
        "y_train": rng.integers(0, 10, 5, dtype=np.uint8),
        "x_test": rng.integers(0, 256, (3, 28, 28), dtype=np.uint8),
        "y_test": rng.integers(0, 10, 3, dtype=np.uint8),
    }
    np.savez(tmp_path / "mnist.npz", **arrays)
    names = {"x_train": "train-images-idx3-ubyte", "y_train": "train-labels-idx1-ubyte",
             "x_test": "t10k-images-idx3-ubyte.gz", "y_test": "t10k-labels-idx1-ubyte.gz"}  # fmt: skip
    for key, name in names.items():
        array = arrays[key]
        header = bytes([0, 0, 8, array.ndim]) + b"".join(int(s).to_bytes(4, "big") for s in array.shape)
        content = header + array.tobytes()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    for path in (tmp_path / "mnist.npz", tmp_path):
        found = load_mnist(path)
        np.testing.assert_allclose(found.x_train, arrays["x_train"] / 255, rtol=1e-6)
        assert found.x_train.dtype == np.float32
        np.testing.assert_array_equal(found.y_test, arrays["y_test"])
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"\x00\x00\x08\x03\x00")
    with pytest.raises(ValueError, match="damaged"):
        load_mnist(tmp_path)
    (tmp_path / "mnist.npz").write_bytes(b"PK but not a zip file")
    with pytest.raises(ValueError, match="damaged"):
        load_mnist(tmp_path / "mnist.npz")
    with pytest.raises(ValueError, match="four IDX files"):
        load_mnist(tmp_path / "nowhere")


def test_checkpoints_hold_arrays_bit_for_bit(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, {"seed": 1})
    arrays = {
        "a": np.array([1.5, np.nan]),
        "b": np.arange(6, dtype=np.int32).reshape(2, 3),
        "c": np.float32(3),
    }
    checkpoint.save(arrays, {"epoch": 2})
    found, record = checkpoint.load()
    assert record == {"epoch": 2}
    for name, value in arrays.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == np.asarray(value).dtype
        assert found[name].shape == np.shape(value)  # a number stays a number
