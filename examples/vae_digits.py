"""A variational autoencoder of handwritten digits: training, tighter bounds, and what the latents mean.

    python examples/vae_digits.py --out out/examples

Data: scikit-learn's 1797 images of 8 x 8 grey levels, the first 1500 for training. Grey levels are
probabilities from which each epoch draws black and white anew (dynamic binarisation).
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pandas as pd
from _common import read_options, save, show
from _data import digit_images

import ppl_lvm as lvm
from ppl_lvm import ELBO, SVI, Annealing, Renyi, models, networks, plots

TRAINING = 1500


def main() -> None:
    options = read_options(__doc__)
    images, labels = digit_images()
    x = (images / 16).astype(np.float32)
    train, test, digits = x[:TRAINING], x[TRAINING:], labels[:TRAINING]
    print(f"Data: {len(x)} digits of 8 x 8 grey levels, {len(train)} for training")
    epochs = 8 if options.quick else 150
    warm = ELBO(beta=Annealing(num_epochs=epochs // 4))
    vae = lvm.fit(model(8), train, SVI(objective=warm, **settings(epochs)))
    iwae = lvm.fit(model(8), train, SVI(objective=Renyi(num_particles=10), **settings(epochs)))
    print(f"\n{vae}")
    print_bounds({"ELBO, beta from 0": vae, "IWAE, K = 10": iwae}, test)
    print_use(vae, test)
    draw(vae, iwae, train, digits, options)
    flat = lvm.fit(model(2), train, SVI(**settings(epochs)))
    save(plots.plot_manifold(flat), options.out, "vae_manifold")
    save(plots.plot_latents(flat, labels=digits), options.out, "vae_latents")
    page = vae.to_html(options.out / "vae_digits.html", labels=digits)
    print(f"wrote {page}")


def model(latent_dim: int) -> models.VAE:
    wide = networks.MLP((200,))
    return models.VAE(latent_dim=latent_dim, encoder=wide, decoder=wide, binarise=True)


def settings(epochs: int) -> dict[str, Any]:
    """Training on JAX; a tenth of the rows is held out, and the best epoch by these is kept."""
    rate = {"learning_rate": 2e-3, "learning_rate_decay": 0.1, "schedule": "cosine"}
    return {"backend": "numpyro", "batch_size": 100, "num_epochs": epochs, "validation": 0.1, **rate}


def print_bounds(fits: dict[str, lvm.Fit], test: np.ndarray) -> None:
    """Lower bounds of the test data: the ELBO, and IWAE bounds, tighter with more particles."""
    rows = {}
    for name, fit in fits.items():
        elbo = fit.encode(test, num_draws=50).evidence
        rows[name, "ELBO"] = {"log p(x) at least": elbo.nats, "error": elbo.std_error}
        for particles in (5, 50, 500):
            found = fit.log_predictive(test, num_particles=particles)
            row = {"log p(x) at least": found.total, "error": found.total_std_error}
            rows[name, f"IWAE, {particles} particles"] = row
    table = pd.DataFrame.from_dict(rows, orient="index") / len(test)
    table.index.names = ["trained on", "bound"]
    show("Test data, nats per image", table, decimals=3)


def print_use(fit: lvm.Fit, test: np.ndarray) -> None:
    """Which latents hold something of the data."""
    mean, sd = fit.transform(test, return_std=True)
    table = pd.DataFrame({"sd of the means": mean.std(0), "mean sd of q": sd.mean(0)})
    show("Latents of the test data, in prior sds", table.sort_values("sd of the means", ascending=False))


def draw(
    vae: lvm.Fit, iwae: lvm.Fit, train: np.ndarray, digits: np.ndarray, options: argparse.Namespace
) -> None:
    def those(digit: int) -> np.ndarray:
        return train[digits == digit]

    def write(name: str, figure: Any) -> None:
        save(figure, options.out, f"vae_{name}")

    write("training", plots.plot_training({"ELBO, beta from 0": vae, "IWAE, K = 10": iwae}))
    write("samples", plots.plot_samples(vae, 60))
    write("reconstructions", plots.plot_reconstructions(vae, train))
    write("traversals", plots.plot_traversals(vae))
    first, last = (np.stack([those(k)[0] for k in chosen]) for chosen in ((0, 1, 2, 3), (6, 7, 5, 8)))
    write("interpolation", plots.plot_interpolation(vae, first, last))
    write("arithmetic", plots.plot_arithmetic(vae, those(3)[:4], those(8), those(3), names=("8", "3")))


if __name__ == "__main__":
    main()
