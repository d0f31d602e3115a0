"""A variational autoencoder of MNIST, from files that you have.

    python examples/vae_mnist.py --mnist mnist.npz --out out/examples

Without ``--mnist`` the file is looked for in the folder of the examples' data (``mnist/mnist.npz``).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _common import save, show
from _data import find

import ppl_lvm as lvm
from ppl_lvm import SVI, models, networks, plots
from ppl_lvm.data import load_mnist

ABSENT = """MNIST is not part of this repository. Give it with --mnist PATH:
- a file mnist.npz with arrays x_train, y_train, x_test, y_test, or
- a folder with the four IDX files (train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte,
  t10k-labels-idx1-ubyte, plain or .gz), as the data tools of common deep-learning libraries leave them.
A copy at mnist/mnist.npz in the folder that PPL_LVM_DATA names is found without --mnist."""


def main() -> int:
    options = read_options()
    path = options.mnist or find("mnist/mnist.npz", bundled=options.bundled)
    if path is None:
        print(ABSENT, file=sys.stderr)
        return 1
    data = load_mnist(path)
    many = 1000 if options.quick else len(data.x_train)
    train, digits = data.x_train[:many], data.y_train[:many]
    test = data.x_test[: 100 if options.quick else 2000]
    print(
        f"Data: {len(train)} images of {train.shape[1]} x {train.shape[2]} for training, {len(test)} for test"
    )
    epochs = options.epochs or (2 if options.quick else 30)
    deep = lvm.fit(model(16, options), train, settings(epochs))
    print(f"\n{deep}")
    print_bounds(deep, test, 50 if options.quick else 1000)
    draw(deep, test, data.y_test[: len(test)], options.out)
    flat = lvm.fit(model(2, options), train, settings(epochs))
    save(plots.plot_manifold(flat, num=15), options.out, "mnist_manifold")
    save(plots.plot_latents(flat, train[:3000], labels=digits[:3000]), options.out, "mnist_latents")
    return 0


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().split("\n")[0])
    parser.add_argument("--mnist", type=Path, help="mnist.npz, or a folder with the IDX files")
    parser.add_argument("--out", type=Path, default=Path("out/examples"), help="folder for the pictures")
    parser.add_argument("--quick", action="store_true", help="a short run on few images")
    parser.add_argument("--bundled", action="store_true", help="do not look for a file")
    parser.add_argument("--epochs", type=int, help="passes over the training images")
    parser.add_argument("--conv", action="store_true", help="convolutions: many times slower without a GPU")
    return parser.parse_args()


def model(latent_dim: int, options: argparse.Namespace) -> models.VAE:
    net: Any = networks.Conv((16, 32), hidden=(128,)) if options.conv else networks.MLP((400,))
    return models.VAE(latent_dim=latent_dim, encoder=net, decoder=net, binarise=True)


def settings(epochs: int) -> SVI:
    """On JAX; a twentieth of the images is held out, and the best epoch by these is kept."""
    return SVI(
        backend="numpyro",
        batch_size=100,
        num_epochs=epochs,
        learning_rate=1e-3,
        learning_rate_decay=0.1,
        schedule="cosine",
        validation=0.05,
    )


def print_bounds(fit: lvm.Fit, test: np.ndarray, most: int) -> None:
    """Lower bounds of the test images: tighter with more particles."""
    rows = {}
    for particles in (5, most):
        found = fit.log_predictive(test, num_particles=particles)
        rows[particles] = {"log p(x) at least": found.total, "error": found.total_std_error}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("particles") / len(test)
    show("Test images, nats per image", table, decimals=3)


def draw(fit: lvm.Fit, test: np.ndarray, digits: np.ndarray, out: Path) -> None:
    def those(digit: int) -> np.ndarray:
        return test[digits == digit]

    save(plots.plot_training(fit), out, "mnist_training")
    save(plots.plot_samples(fit, 60), out, "mnist_samples")
    save(plots.plot_reconstructions(fit, test), out, "mnist_reconstructions")
    save(plots.plot_traversals(fit), out, "mnist_traversals")
    first, last = (np.stack([those(k)[0] for k in chosen]) for chosen in ((0, 1, 2, 3), (6, 7, 5, 8)))
    save(plots.plot_interpolation(fit, first, last), out, "mnist_interpolation")
    figure = plots.plot_arithmetic(fit, those(4)[:4], those(9), those(4), names=("9", "4"))
    save(figure, out, "mnist_arithmetic")


if __name__ == "__main__":
    sys.exit(main())
