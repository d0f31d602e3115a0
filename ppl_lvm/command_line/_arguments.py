"""The arguments, as argparse takes them; nothing heavy is imported, so that ``--help`` is quick."""

from __future__ import annotations

import argparse
from pathlib import Path

MODELS = ("gmm", "mixture", "hmm", "ppca", "factor_analysis")
ENGINES = ("em", "svi", "is", "nuts", "smc", "ais")
EMISSIONS = ("gaussian", "student_t", "bernoulli", "categorical", "poisson", "negative_binomial")

_EPILOG = """\
exit codes:
  0    done; verdicts are in the output and in verdicts.json
  1    a fit or the comparison failed (the other fits are saved, compared and reported)
  2    bad usage or input; one line on standard error says what to change
  3    with --strict: some verdict is do_not_trust
  130  interrupted; finished fits are saved

Without --strict a do_not_trust verdict is an answer like any other: the exit code stays 0."""
_SETTINGS = """\
settings:
  --set nuts.num_samples=2000     a setting of an engine, by its field's name
  --set model.concentration=1.5   a setting of the model
Values are Python literals; anything else is taken as text."""


class Options(argparse.Namespace):
    """What was asked for; which fields are there depends on the command."""

    command: str
    data: Path
    model: str
    engines: tuple[str, ...]
    out: Path | None
    reference: str | None
    held_out: Path | None
    seed: int
    set: list[tuple[str, str, str]]
    strict: bool
    quiet: bool
    columns: tuple[str, ...] | None
    sequence: str | None
    num_components: int | None
    num_states: int | None
    latent_dim: int | None
    covariance: str | None
    emission: str | None
    folders: list[Path]


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    top = argparse.ArgumentParser(
        prog="ppl_lvm",
        description="Fit latent-variable models with several engines, and see which of them can be trusted.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="command")

    def command(name: str, words: str, epilog: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=words,
            description=words[0].upper() + words[1:] + ".",
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    compare = command(
        "compare", "fit one model with several engines, save, compare and report", f"{_SETTINGS}\n\n{_EPILOG}"
    )
    _data_and_model(compare)
    compare.add_argument(
        "--engines", type=_engines, required=True, metavar="NAMES", help=f"some of {','.join(ENGINES)}"
    )
    compare.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for fits, tables and report.html"
    )
    compare.add_argument("--seed", type=_seed, default=0, help="of every fit (default 0)")
    _set(compare)
    _verdicts(compare)
    compare.add_argument("--quiet", action="store_true", help="no progress on standard error")

    report = command(
        "report", "write the report of saved fits", "Folders are those of single fits, or of compare's --out."
    )
    report.add_argument(
        "folders", type=Path, nargs="+", metavar="DIR", help="a saved fit, or a folder of them"
    )
    report.add_argument("--out", type=Path, metavar="FILE", help="default: report.html in the first folder")
    _verdicts(report)

    engines = command("engines", "say which engines take a model with these data, and why not", _SETTINGS)
    _data_and_model(engines)
    _set(engines)
    return top


def _data_and_model(to: argparse.ArgumentParser) -> None:
    to.add_argument("data", type=Path, help="a .csv or .tsv file with a header, or an .npy array")
    to.add_argument("--columns", type=_names, metavar="NAMES", help="use these columns only")
    to.add_argument("--sequence", metavar="COLUMN", help="for hmm: the column that tells sequences apart")
    to.add_argument("--model", choices=MODELS, required=True)
    to.add_argument("--num-components", type=_count, metavar="K", help="for gmm and mixture")
    to.add_argument("--num-states", type=_count, metavar="K", help="for hmm")
    to.add_argument("--latent-dim", type=_count, metavar="Q", help="for ppca and factor_analysis")
    to.add_argument("--covariance", metavar="KIND", help="for gmm: full, tied, diag or spherical")
    to.add_argument("--emission", choices=EMISSIONS, help="for mixture and hmm")


def _set(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--set", type=_setting, action="append", default=[], metavar="WHAT.NAME=VALUE", help="see below"
    )


def _verdicts(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--reference",
        metavar="NAME",
        help="what others are held against; default nuts where it is, or 'none'",
    )
    to.add_argument("--held-out", type=Path, metavar="FILE", help="rows to predict, in the form of the data")
    to.add_argument("--strict", action="store_true", help="exit with 3 if some verdict is do_not_trust")


# ---- types ---------------------------------------------------------------------------------------


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _engines(text: str) -> tuple[str, ...]:
    names = _names(text)
    unknown = [n for n in names if n not in ENGINES]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"unknown {', '.join(unknown)}; there are {', '.join(ENGINES)}")
    if len(set(names)) < len(names):
        raise argparse.ArgumentTypeError("an engine is named twice")
    return names


def _count(text: str) -> int:
    return _at_least(text, 1)


def _seed(text: str) -> int:
    return _at_least(text, 0)


def _at_least(text: str, least: int) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text!r}")
    return int(text)


def _setting(text: str) -> tuple[str, str, str]:
    """("nuts", "num_samples", "500")."""
    name, sign, value = text.partition("=")
    what, dot, field = name.partition(".")
    if not (sign and dot and what and field):
        raise argparse.ArgumentTypeError(f"expected WHAT.NAME=VALUE, as nuts.num_samples=500, got {text!r}")
    if what != "model" and what not in ENGINES:
        raise argparse.ArgumentTypeError(f"{what!r} is neither 'model' nor an engine ({', '.join(ENGINES)})")
    return what, field, value


__all__ = ["EMISSIONS", "ENGINES", "MODELS", "Options", "parser"]
