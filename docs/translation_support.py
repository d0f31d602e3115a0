"""Write docs/translation-support.md from the table of rules and from the cases that the tests run.

    python docs/translation_support.py          # writes the page
    python docs/translation_support.py --check  # fails if the page is not what would be written

tests/test_translate_rules.py does the latter.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE / "translation-support.md"
sys.path.insert(0, str(HERE.parent / "tests"))

KINDS = {
    "elementwise": "Elements",
    "special": "Special functions",
    "reduction": "Reductions",
    "ordering": "Orders and cumulative operators",
    "shape": "Shapes",
    "creation": "Tensors like another",
    "indexing": "Indexing",
    "scatter": "Scattering",
    "linalg": "Products and distances",
    "factorisations": "Factorisations and solves",
    "fourier": "Fourier transforms",
    "networks": "Networks",
    "pooling": "Pooling",
    "decomposed": "Rewritten by torch into the others",
}

TOP = """\
---
orphan: true
---

# What the automatic twin supports

This page is written by `docs/translation_support.py` from the rules and from the cases that the tests run
against Pyro and torch; do not edit it.

Everything listed here agrees with Pyro (distributions, transforms, networks) or torch (operators) in value
and gradient to 1e-9 in float64. What is not listed is refused with its name and the way out: another way to
write it, `lvm.register_rule`, or `backend="pyro"`. And whatever the lists say, each translation is compared
with Pyro's own value and gradient before it is used.
"""


def page() -> str:
    """The whole page."""
    from ppl_lvm.backends.translate.rules import supported

    rules = supported()
    parts = [TOP, _distributions(), _transforms(), _networks(), _refused(), "## Operators\n"]
    parts.append(
        "ATen operators, as torch records them; `torch.einsum`, `torch.matmul`, `F.linear` and many others\n"
        "are recorded as several of these. Derivatives at kinks (`abs` at 0, `clamp` at a bound, ties of\n"
        "`max`) are torch's.\n"
    )
    for kind, title in KINDS.items():
        names = sorted({name.removeprefix("aten.") for name in rules.pop(kind)})
        parts.append(f"### {title}\n\n{_wrapped(f'`{n}`' for n in names)}\n")
    if rules:
        raise ValueError(f"KINDS: no title for {sorted(rules)}; add one to docs/translation_support.py.")
    return "\n".join(parts)


def _wrapped(names: Iterable[str]) -> str:
    return textwrap.fill(", ".join(names) + ".", 110, break_long_words=False, break_on_hyphens=False)


def _section(title: str, *parts: tuple[str, Iterable[str]]) -> str:
    text = "\n\n".join(f"{lead}\n\n{_wrapped(names)}" for lead, names in parts)
    return f"## {title}\n\n{text}\n"


def _distributions() -> str:
    from translation_built_cases import BUILT
    from translation_cases import DECLARED

    latent, observed = set(), set()
    for case in (*DECLARED, *BUILT):
        (latent if case.latent else observed).add(case.name.split()[0])
    both = "Of `pyro.distributions`, as the prior of a latent site and of observed values, parameters latent:"
    return _section(
        "Distributions",
        (both, sorted(latent)),
        ("Of observed values (discrete latent sites are summed out):", sorted(observed - latent)),
    )


def _transforms() -> str:
    from translation_transforms import FLOWS

    inverse = {f.name.split()[0] for f in FLOWS if f.inverse}
    forward = {f.name.split()[0] for f in FLOWS} - inverse
    both = (
        "Of `pyro.distributions.transforms`, with log-Jacobians, weights fixed or latent, in both directions:"
    )
    return _section(
        "Transforms",
        (both, sorted(inverse)),
        ("Forward (Pyro has no inverse, or only that of values just computed):", sorted(forward)),
    )


def _networks() -> str:
    from test_translate_networks import ACTIVATIONS, NETWORKS

    lead = (
        "In evaluation mode, built outside of the model; weights fixed (`pyro.module`) or `PyroSample` sites:"
    )
    return _section(
        "Networks",
        (lead, [n for n in NETWORKS if n != "activations"]),
        ("Activations:", [kind.__name__ for kind in ACTIVATIONS]),
    )


def _refused() -> str:
    from translation_refused import REFUSED, WITHOUT

    rows = [f"| {r.case.name.split()[0]} | {r.reason} |" for r in REFUSED]
    rows += [f"| {name} | {reason} |" for name, reason in WITHOUT.items() if reason != "no distribution"]
    return "## What is not taken\n\n| name | why |\n|---|---|\n" + "\n".join(rows) + "\n"


def main(arguments: list[str]) -> int:
    text = page()
    if "--check" not in arguments:
        PAGE.write_text(text)
        return 0
    if not PAGE.is_file() or PAGE.read_text() != text:
        sys.stderr.write(f"{PAGE.name} is out of date: run python docs/{Path(__file__).name}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
