"""The report: one page that loads nothing, says all, escapes what users write, and works in a browser."""

import dataclasses
import logging
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
from browser import NAMES, Browser, find_browser
from helpers import BRIEF_CHECK
from sklearn.datasets import load_iris

import ppl_lvm as lvm
from ppl_lvm import EM, NUTS, SVI, ImportanceSampling, models
from ppl_lvm.report import write_report
from ppl_lvm.report._context import support
from ppl_lvm.report._story import as_text, formula, story_of
from ppl_lvm.report._tables import show

EVIL_FEATURE = '<b>&"petal'
FEATURES = ["length (cm)", EVIL_FEATURE, "width", "petal width"]
EVIL_FIT = "<script>alert('fit')</script>"
VOID = {"br", "hr", "img", "input", "link", "meta", "source", "col", "base", "embed"}


class Page(HTMLParser):
    """What a test asks of a page: its elements in order, with attributes and text, properly nested."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.open: list[tuple[str, list[str]]] = []
        self.text: list[str] = []
        self.source = text
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        words: list[str] = []
        self.elements.append((tag, dict(attrs), words))
        if tag not in VOID:
            self.open.append((tag, words))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        if tag in ("td", "th"):
            self.handle_data(" ")
        opened, _ = self.open.pop()
        assert opened == tag, f"</{tag}> closes <{opened}>"

    def handle_data(self, data: str) -> None:
        for _, words in self.open:
            words.append(data)
        if not self.open or self.open[-1][0] not in ("style", "script"):
            self.text.append(data)

    def all(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [
            (attrs, " ".join("".join(words).split())) for name, attrs, words in self.elements if name == tag
        ]

    def inside(self, identity: str) -> "Page":
        """The part of the page that is the element of this id."""
        start = re.search(rf'<(\w+)[^>]*\bid="{identity}"', self.source)
        assert start
        depth, tag = 0, start[1]
        for found in re.finditer(rf"<(/?){tag}\b", self.source[start.start() :]):
            depth += -1 if found[1] else 1
            if depth == 0:
                end = start.start() + found.start()
                return Page(self.source[start.start() : end] + f"</{tag}>")
        raise AssertionError(identity)


def schools(y: Any, sigma: Any) -> None:
    """Effects of coaching: theta_j ~ Normal(mu, tau)."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfNormal(5.0))
    with pyro.plate("school", len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("obs", dist.Normal(theta, sigma), obs=y)


@pytest.fixture(scope="module")
def fits() -> dict[str, lvm.Fit]:
    # shapes and settings of test_plots.py, so that programs are compiled once
    x = pd.DataFrame(load_iris().data, columns=FEATURES)
    mixture = models.GaussianMixture(num_components=3, covariance="diag")
    vi = lvm.fit(mixture, x, SVI(num_steps=200))
    return {
        "em": lvm.fit(mixture, x, EM(num_init=1)),
        "vi": vi,
        EVIL_FIT: lvm.fit(mixture, x, ImportanceSampling(num_samples=200, proposal=vi)),
        "nuts": lvm.fit(mixture, x, NUTS(backend="numpyro", num_warmup=150, num_samples=100)),
    }


@pytest.fixture(scope="module")
def comparisons(
    fits: dict[str, lvm.Fit], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, lvm.Comparison]:
    folder = tmp_path_factory.mktemp("stored")
    stored = {}
    for name in ("vi", "nuts", "em"):
        fits[name].save(folder / name, data=False)
        stored[name] = lvm.load(folder / name)
    y = {"y": np.array([28.0, 8.0, -3.0]), "sigma": np.array([15.0, 10.0, 16.0])}
    return {
        "reference": lvm.compare(fits, reference="nuts"),
        "no reference": lvm.compare(fits, spot_check=BRIEF_CHECK),
        "points": lvm.compare({"em": fits["em"]}, spot_check=BRIEF_CHECK),
        "loaded without data": lvm.compare(stored, reference="nuts"),
        "a plain function": lvm.compare(
            {"vi": lvm.fit(schools, y, SVI(num_steps=50, window=10))}, spot_check=BRIEF_CHECK
        ),
    }


CASES = ("reference", "no reference", "points", "loaded without data", "a plain function")


@pytest.fixture(scope="module")
def written(
    comparisons: dict[str, lvm.Comparison], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    assert tuple(comparisons) == CASES
    folder = tmp_path_factory.mktemp("reports")
    return {name: c.to_html(folder / "new" / f"{i}.html") for i, (name, c) in enumerate(comparisons.items())}


@pytest.fixture(scope="module")
def pages(written: dict[str, Path]) -> dict[str, Page]:
    return {name: Page(path.read_text("utf-8")) for name, path in written.items()}


every_page = pytest.mark.parametrize("case", CASES)


# ---- one page that loads nothing -----------------------------------------------------------------


@every_page
def test_every_image_is_embedded(case: str, pages: dict[str, Page]) -> None:
    images = pages[case].all("img")
    assert len(images) >= 3
    assert all(str(attrs["src"]).startswith("data:image/") for attrs, _ in images)


@every_page
def test_nothing_is_loaded_from_elsewhere(case: str, pages: dict[str, Page]) -> None:
    page = pages[case]
    for tag, attrs, _ in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base"), tag
        for name in ("src", "href", "action", "srcset", "poster", "data"):
            target = attrs.get(name) or ""
            assert target.startswith(("data:", "#")) or not target, (tag, name, target[:80])
        assert not any(name.startswith("on") for name in attrs), attrs
    for style, _ in [(words, 0) for _, words in page.all("style")]:
        assert "url(" not in style
        assert "@import" not in style
    for _, script in page.all("script"):
        assert not re.search(r"https?:|fetch\(|XMLHttpRequest|import\(|eval\(|innerHTML", script)
    policy = next(
        a["content"] for a, _ in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in str(policy)


@every_page
def test_pictures_inside_load_nothing_either(case: str, pages: dict[str, Page]) -> None:
    import base64

    for attrs, _ in pages[case].all("img"):
        svg = base64.b64decode(str(attrs["src"]).partition("base64,")[2]).decode("utf-8")
        assert "<script" not in svg
        assert not re.search(r'(?:xlink:)?href="(?!#|data:)', svg)


# ---- what it says --------------------------------------------------------------------------------


@every_page
def test_the_table_has_every_row(
    case: str, pages: dict[str, Page], comparisons: dict[str, lvm.Comparison]
) -> None:
    table = pages[case].inside("table")
    expected = comparisons[case].table
    rows = table.all("tr")
    assert len(rows) == 1 + len(expected)
    for (_, row), (fit, quantity) in zip(rows[1:], expected.index, strict=True):
        assert " ".join(str(fit).split()) in row
        assert " ".join(str(quantity).split()) in row


def test_the_tables_keys_are_the_full_values(
    pages: dict[str, Page], comparisons: dict[str, lvm.Comparison]
) -> None:
    table = pages["reference"].inside("table")
    heads = [text for _, text in table.all("th")]
    width = len(heads)
    cells = [attrs for attrs, _ in table.all("td")]
    column = cells[heads.index("mean") :: width]
    np.testing.assert_array_equal(
        [float(str(attrs["data-key"])) for attrs in column], comparisons["reference"].table["mean"].to_numpy()
    )
    biases = comparisons["reference"].table["bias"].abs().to_numpy()
    marked = ["beyond" in str(attrs.get("class")) for attrs in cells[heads.index("bias") :: width]]
    np.testing.assert_array_equal(marked, biases > 0.5)


@every_page
def test_every_verdict_is_there_in_words_and_sign(
    case: str, pages: dict[str, Page], comparisons: dict[str, lvm.Comparison]
) -> None:
    section = pages[case].inside("verdicts")
    text = " ".join("".join(section.text).split())
    for name, verdict in comparisons[case].verdicts.items():
        assert " ".join(name.split()) in text
        sentence = verdict.sentence.replace("+-", "±")
        assert sentence[0].upper() + sentence[1:] in text
        assert verdict.level.replace("_", " ") in text
    cards = [attrs for attrs, _ in section.all("li")]
    assert len(cards) == len(comparisons[case].verdicts)
    assert len(section.all("svg")) >= len(cards)


def test_verdicts_come_first(pages: dict[str, Page]) -> None:
    sections = [attrs["id"] for attrs, _ in pages["reference"].all("section")]
    assert sections == [
        "verdicts",
        "model",
        "overview",
        "prediction",
        "quantities",
        "pictures",
        "evidence",
        "settings",
        "method",
    ]


def test_model_and_data_are_described(pages: dict[str, Page]) -> None:
    text = "".join(pages["reference"].inside("model").text)
    for word in (
        "GaussianMixture(num_components=3",
        "150 rows",
        "assignment",
        "discrete, summed out",
        "simplex",
        "π ~ Dirichlet",
    ):
        assert word in text, word
    plain = "".join(pages["a plain function"].inside("model").text)
    assert "Effects of coaching: theta_j ~ Normal(mu, tau)." in plain
    assert "school (3)" in plain
    assert "loaded without their data" in "".join(pages["loaded without data"].inside("model").text)


def test_the_graph_and_the_story_are_there(pages: dict[str, Page]) -> None:
    section = pages["reference"].inside("model")
    alts = [str(attrs["alt"]) for attrs, _ in section.all("img")]
    assert any("assignment depends on weights" in alt and "observed: obs" in alt for alt in alts)
    story = " ".join("".join(section.inside("story").text).split())
    assert "weights ~ Dirichlet(2) data (150) assignment ~ Categorical(weights)" in story.replace(
        story[story.index(" loc ~") : story.index(" data (150)")], ""
    )
    plain = " ".join("".join(pages["a plain function"].inside("story").text).split())
    assert "mu ~ Normal(0, 5) tau ~ HalfNormal(5)" in plain
    assert "school (3) theta ~ Normal(mu, tau) school (3) obs ~ Normal(theta, sigma)" in plain
    assert not pages["loaded without data"].inside("model").all("img")


def test_predictions_are_there_with_their_errors(
    pages: dict[str, Page], comparisons: dict[str, lvm.Comparison]
) -> None:
    section = pages["reference"].inside("prediction")
    scores = comparisons["reference"].predictive
    shown = [text for _, text in section.inside("scores").all("tr")][1:]
    assert len(shown) == int((scores["kind"] != "").sum()) >= 1
    text = "".join(section.text)
    for note in scores["note"]:
        assert note in text
    rows = section.inside("checks").all("tr")
    assert len(rows) == 1 + 4 * 4  # four columns, four statistics
    assert EVIL_FEATURE in text


def test_held_out_rows_are_named_as_such(fits: dict[str, lvm.Fit], tmp_path: Path) -> None:
    rows = pd.DataFrame(np.random.default_rng(1).normal(2, 2, (20, 4)), columns=FEATURES)
    path = lvm.compare({"em": fits["em"], "vi": fits["vi"]}, "vi", data=rows).to_html(tmp_path / "r.html")
    section = Page(path.read_text("utf-8")).inside("prediction")
    text = " ".join("".join(section.text).split())
    assert "Held-out rows" in text
    assert "plug-in" in text


def test_a_given_ladder_is_shown_and_nothing_else_is_taken(
    comparisons: dict[str, lvm.Comparison], tmp_path: Path
) -> None:
    found = {
        "prior IS": lvm.Evidence("estimate", -50.4, 0.6),
        "ELBO": lvm.Evidence("lower_bound", -57.0, 0.1),
    }
    rows = {k: (e.nats, e.std_error, e.kind, 1.0, "") for k, e in found.items()}
    rows["bridge"] = (np.nan, np.nan, "", 0.0, "chains <disagree>")
    table = pd.DataFrame.from_dict(
        rows, orient="index", columns=["nats", "std_error", "kind", "seconds", "note"]
    )
    ladder = lvm.EvidenceLadder("schools", table, found, {})
    path = comparisons["points"].to_html(tmp_path / "r.html", ladder=ladder)
    text = " ".join("".join(Page(path.read_text("utf-8")).inside("ladder").text).split())
    assert "ELBO ≥ −57.00 0.10" in text
    assert "chains <disagree>" in text
    with pytest.raises(TypeError, match="evidence_ladder"):
        comparisons["points"].to_html(tmp_path / "r.html", ladder=found)  # type: ignore[arg-type]


def test_notebook_displays_are_escaped_and_say_the_same(
    fits: dict[str, lvm.Fit], comparisons: dict[str, lvm.Comparison]
) -> None:
    html = comparisons["reference"]._repr_html_()
    page = Page(html)
    assert not page.open
    assert not page.all("script")
    text = "".join(page.text)
    assert EVIL_FIT in text
    for name, verdict in comparisons["reference"].verdicts.items():
        assert name in text
        assert verdict.sentence in text
    for fit in fits.values():
        one = Page(fit._repr_html_())
        assert not one.open
        words = " ".join("".join(one.text).split())
        assert fit.model.describe() in words
        assert str(fit.status) in words
        assert fit.evidence is None or str(fit.evidence) in words
        assert type(fit.engine).__name__ in repr(fit)


def test_evidence_has_its_kind_sign_and_error(pages: dict[str, Page], fits: dict[str, lvm.Fit]) -> None:
    text = " ".join("".join(pages["reference"].inside("evidence").text).split())
    for name, sign, kind in (("vi", "≥", "lower bound"), (EVIL_FIT, "≈", "estimate")):
        found = fits[name].evidence
        assert found is not None
        value = f"{found.nats:.2f}".replace("-", "−")
        assert f"{name} {kind} {sign} {value} {found.std_error:.2f}" in text
    assert f"{fits['em'].log_likelihood:.2f}".replace("-", "−") in text


def test_settings_seeds_versions_and_times_are_there(
    pages: dict[str, Page], fits: dict[str, lvm.Fit]
) -> None:
    text = "".join(pages["reference"].inside("settings").text)
    for word in (
        "num_warmup=150",
        "num_samples=100",
        "proposal=a fit by SVI on pyro",
        "torch 2.",
        "jax 0.",
        "float64",
    ):
        assert word in text, word
    for fit in fits.values():
        assert show(fit.meta["wall_seconds"]) in text


def test_pictures_that_cannot_be_made_are_named(
    pages: dict[str, Page], caplog: pytest.LogCaptureFixture
) -> None:
    text = "".join(pages["loaded without data"].inside("pictures").text)
    assert "Clusters by nuts: " in text
    assert "without its data" in text
    assert [text.partition(".")[0] for _, text in pages["reference"].inside("pictures").all("b")] == [
        *("Figure 1", "Figure 2", "Figure 3", "Figure 4", "Figure 5", "Figure 6"),
        *("Figure 7", "Figure 8", "Figure 9", "Figure 10", "Figure 11", "Figure 12"),
    ]


def test_a_point_has_no_spread_anywhere(pages: dict[str, Page]) -> None:
    table = pages["points"].inside("table")
    heads = [text for _, text in table.all("th")]
    assert heads == ["fit", "quantity", "mean"]


# ---- semantics and access ------------------------------------------------------------------------


@every_page
def test_headings_are_in_order(case: str, pages: dict[str, Page]) -> None:
    levels = [int(tag[1]) for tag, _, _ in pages[case].elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


@every_page
def test_language_title_and_alternative_texts(case: str, pages: dict[str, Page]) -> None:
    page = pages[case]
    assert page.all("html")[0][0]["lang"] == "en"
    assert page.all("title")[0][1]
    for attrs, _ in page.all("img"):
        assert len(str(attrs["alt"])) > 20
        assert attrs["width"]
        assert attrs["height"]
    assert len(page.all("figcaption")) == len(page.all("figure")) == len(page.all("img"))


@every_page
def test_ids_are_unique_and_what_refers_to_them_finds_them(case: str, pages: dict[str, Page]) -> None:
    attributes = [attrs for _, attrs, _ in pages[case].elements]
    ids = [str(attrs["id"]) for attrs in attributes if "id" in attrs]
    assert len(ids) == len(set(ids))
    wanted = [attrs[k] for attrs in attributes for k in ("for", "aria-labelledby") if k in attrs]
    wanted += [str(attrs["href"])[1:] for attrs in attributes if "href" in attrs]
    assert set(wanted) <= set(ids)


@every_page
def test_every_table_says_what_its_headings_head(case: str, pages: dict[str, Page]) -> None:
    assert all(attrs.get("scope") in ("col", "row") for attrs, _ in pages[case].all("th"))


@every_page
def test_what_users_write_is_escaped(case: str, pages: dict[str, Page]) -> None:
    assert not pages[case].open  # every element is closed: nothing that a user wrote opened one
    assert not pages[case].all("b") or all(
        EVIL_FEATURE[3:] not in text[:20] for _, text in pages[case].all("b")
    )
    assert len(pages[case].all("script")) == 1
    if case in ("reference", "no reference"):
        assert EVIL_FEATURE in "".join(pages[case].text)
        assert EVIL_FIT in "".join(pages[case].text)


# ---- the file ------------------------------------------------------------------------------------


def test_a_folder_is_refused_and_a_file_replaced(
    comparisons: dict[str, lvm.Comparison], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="folder"):
        write_report(comparisons["points"], tmp_path)
    target = tmp_path / "deep" / "er" / "report.html"
    assert write_report(comparisons["points"], str(target)) == target
    target.write_text("old")
    write_report(comparisons["points"], target)
    assert target.read_text("utf-8").startswith("<!DOCTYPE html>")
    assert [p.name for p in target.parent.iterdir()] == ["report.html"]


def test_what_is_left_out_is_logged(
    comparisons: dict[str, lvm.Comparison], tmp_path: Path, caplog: Any
) -> None:
    with caplog.at_level(logging.INFO, logger="ppl_lvm"):
        write_report(comparisons["loaded without data"], tmp_path / "report.html")
    assert any("left out" in record.message for record in caplog.records)


# ---- words and numbers ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.00"), (1.0, "1.00"), (-0.01234, "−0.0123"), (12.345, "12.3"), (123.45, "123"),
        (12345.6, "12346"),
        (1e-9, "1.00e−09"), (2.5e9, "2.50e+09"), (float("nan"), "–"), (None, "–"), (float("inf"), "∞"),
        (float("-inf"), "−∞"), (7, "7"), (np.int64(-7), "−7"), (True, "True"), ("a", "a"),
    ],
)  # fmt: skip
def test_numbers_as_text(value: Any, text: str) -> None:
    assert show(value) == text


@pytest.mark.parametrize(
    ("latex", "text"),
    [
        (r"\pi &\sim \mathrm{Dirichlet}(\alpha_1, \dots, \alpha_k) \\", "π ~ Dirichlet(α_1, …, α_k)"),
        (r"\Sigma_j = \mathrm{diag}(\sigma_j) \Lambda_j \Lambda_j^\top", "Σ_j = diag(σ_j) Λ_j Λ_jᵀ"),
        (r"x_i \sim \mathrm{Normal}(\mu_{z_i}, s^2)", "x_i ~ Normal(μ_z_i, s²)"),
        (r"\tfrac12 x \le \frac{a}{b}", "½ x ≤ (a) / (b)"),
    ],
)
def test_formulas_as_text(latex: str, text: str) -> None:
    assert formula(latex) == text


def test_docstrings_as_text() -> None:
    ruler = "===== =========="
    table = [ruler, "site  symbol", ruler, "``w`` :math:`\\pi`", ruler]
    words = ["See :func:`ppl_lvm.fit`, *Title*."]
    doc = "\n".join(["Head.", "", ".. math::", "", "    z &\\sim q", "", *table, "", *words])
    text = as_text(doc)
    assert "    z ~ q" in text
    assert "See ppl_lvm.fit, Title." in text
    assert "w     π" in text  # in a table the columns stay under each other
    assert "math" not in text


def test_a_conditioned_model_tells_its_base_models_story() -> None:
    model = models.GaussianMixture(num_components=2)
    assert story_of(model).startswith("Finite mixture of Gaussians.")
    held = lvm.condition(model, {"weights": np.array([0.5, 0.5])})
    assert story_of(held) == story_of(model)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("real", "real"), ("", "–"), ("greaterthan(lower_bound=0.0)", "positive"),
        ("greaterthan(lower_bound=1.0)", "greaterthan(lower_bound=1.0)"),
        ("integerinterval(lower_bound=0, upper_bound=2)", "0 to 2"),
        ("corrcholesky", "Cholesky factor of a correlation matrix"),
    ],
)  # fmt: skip
def test_supports_in_words(name: str, text: str) -> None:
    assert support(name) == text


# ---- in a browser --------------------------------------------------------------------------------

COLUMN = """(() => {
  const table = document.getElementById("table");
  const value = (cell) => cell.dataset.key ?? cell.textContent;
  return Array.from(table.tBodies[0].rows, (row) => value(row.cells[AT]));
})()"""
BUTTONS = """Array.from(document.querySelectorAll("#table thead button"), (b) => b.textContent)"""
SORTED = """Array.from(document.querySelectorAll("#table thead th"), (h) => h.getAttribute("aria-sort"))"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = find_browser()
    if found is None:
        pytest.skip(
            f"no browser to try the page in: none of {', '.join(NAMES)} is installed (CONTRIBUTING.md)"
        )
    with Browser(found, tmp_path_factory.mktemp("profile")) as running:
        yield running


def column(browser: Browser, at: int) -> list[str]:
    found: list[str] = browser.ask(COLUMN.replace("AT", str(at)))
    return found


@pytest.mark.parametrize("how", ["click", "Enter", " "])
def test_the_table_sorts_by_click_and_by_keyboard(
    browser: Browser, how: str, written: dict[str, Path], comparisons: dict[str, lvm.Comparison]
) -> None:
    browser.open(written["reference"])
    words = browser.ask(BUTTONS)
    assert words[:3] == ["fit", "quantity", "mean"]
    at = words.index("sd")

    def sort() -> None:
        if how == "click":
            browser.ask(f'document.querySelectorAll("#table thead button")[{at}].click()')
            return
        # Tab from the heading before: the button is reached without a mouse
        browser.ask(f'document.querySelectorAll("#table thead button")[{at - 1}].focus()')
        browser.press("Tab")
        assert browser.ask("document.activeElement.textContent") == "sd"
        browser.press(how)

    table = comparisons["reference"].table
    sds = sorted(table["sd"].dropna())
    missing = [""] * int(table["sd"].isna().sum())
    assert missing  # the point has none: missing values stay last whichever way round
    for expected, state in ((sds, "ascending"), (sds[::-1], "descending"), (sds, "ascending")):
        sort()
        found = column(browser, at)
        assert [float(v) for v in found[: len(sds)]] == expected
        assert found[len(sds) :] == missing
        assert [s for s in browser.ask(SORTED) if s] == [state]
    assert browser.complaints() == []


def test_words_sort_too_and_rows_can_be_filtered(
    browser: Browser, written: dict[str, Path], comparisons: dict[str, lvm.Comparison]
) -> None:
    browser.open(written["reference"])
    before = column(browser, 1)
    browser.ask('document.querySelectorAll("#table thead button")[1].click()')
    assert sorted(column(browser, 1)) == sorted(before)
    assert column(browser, 1) != before
    browser.ask(
        'document.getElementById("filter").value = "vi LOC";'
        'document.getElementById("filter").dispatchEvent(new Event("input"))'
    )
    table = comparisons["reference"].table
    names = [f"{fit} {quantity}".lower() for fit, quantity in table.index]
    expected = sum("vi" in name and "loc" in name for name in names)
    assert browser.ask('document.getElementById("count").textContent') == f"{expected} of {len(table)} rows"
    assert browser.ask('document.querySelectorAll("#table tbody tr:not([hidden])").length') == expected


def test_the_overview_and_the_scores_sort(browser: Browser, written: dict[str, Path]) -> None:
    browser.open(written["reference"])
    for name in ("fits", "scores"):
        rows = f'Array.from(document.querySelectorAll("#{name} tbody tr"), (r) => r.cells[0].textContent)'
        before = browser.ask(rows)
        browser.ask(f'document.querySelector("#{name} thead button").click()')
        assert browser.ask(rows) == sorted(before, key=str.lower)
        browser.ask(f'document.querySelector("#{name} thead button").click()')
        assert browser.ask(rows) == sorted(before, key=str.lower)[::-1]


@every_page
@pytest.mark.parametrize("width", [1280, 390])
def test_every_picture_is_there_and_nothing_overflows(
    browser: Browser, width: int, case: str, written: dict[str, Path], pages: dict[str, Page]
) -> None:
    """Wide tables and pictures scroll in their own boxes, the page does not; the console stays silent."""
    browser.open(written[case], width, dark=width == 390)
    assert browser.ask("innerWidth") == width
    images = browser.ask("Array.from(document.images, (i) => i.complete && i.naturalWidth > 0)")
    assert len(images) == len(pages[case].all("img"))
    assert all(images)
    assert browser.ask("document.documentElement.scrollWidth") <= width
    assert browser.complaints() == []


def test_small_print_stays_readable_in_the_dark(browser: Browser, written: dict[str, Path]) -> None:
    """Contrast of text and background (WCAG 2: 4.5 for small text), light and dark."""
    for dark in (False, True):
        browser.open(written["reference"], dark=dark)
        pairs = browser.ask(
            """(() => {
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if (c !== "rgba(0, 0, 0, 0)" && c !== "transparent") return c;
    }
    return getComputedStyle(document.body).backgroundColor;
  };
  const wanted = "p, td, th, dd, dt, li, caption, code, summary, .badge, .note, .beyond, a, button";
  return [...new Set(Array.from(document.querySelectorAll(wanted), (e) =>
    getComputedStyle(e).color + "|" + behind(e)))];
})()"""
        )
        assert len(pairs) > 5
        assert {pair: contrast(pair) for pair in pairs if contrast(pair) < 4.5} == {}


def contrast(pair: str) -> float:
    """The ratio of luminances of "rgb(...)|rgb(...)"."""

    def luminance(color: str) -> float:
        parts = np.array([float(v) for v in re.findall(r"[\d.]+", color)[:3]]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    one, two = sorted(map(luminance, pair.split("|")))
    return (two + 0.05) / (one + 0.05)


def test_it_prints(browser: Browser, written: dict[str, Path]) -> None:
    browser.open(written["reference"])
    document = browser.pdf()
    assert document.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", document)) >= 3
    assert browser.complaints() == []


def test_a_planted_error_is_heard(browser: Browser, written: dict[str, Path], tmp_path: Path) -> None:
    source = written["points"].read_text("utf-8")
    broken = tmp_path / "broken.html"
    wide = "<div style='width: 600px'>wide</div>"
    broken.write_text(
        source.replace(
            "</body>", f"{wide}<script>undefined.x</script><img src='http://localhost/x.png'></body>"
        )
    )
    browser.open(broken, 390)
    heard = " ".join(browser.complaints())
    assert "TypeError" in heard
    assert "Content Security Policy" in heard
    assert browser.ask("document.documentElement.scrollWidth") > 390


def test_templates_are_part_of_the_package() -> None:
    folder = Path(lvm.__file__).parent / "report" / "templates"
    assert {p.name for p in folder.iterdir()} == {"page.html", "page.js", "style.css", "vae.html"}


def test_rendering_needs_no_fit_to_be_changed(comparisons: dict[str, lvm.Comparison], tmp_path: Path) -> None:
    comparison = comparisons["a plain function"]
    before = {name: dataclasses.asdict(fit.status) for name, fit in comparison.fits.items()}
    table = comparison.table.copy()
    write_report(comparison, tmp_path / "report.html")
    pd.testing.assert_frame_equal(comparison.table, table)
    assert {name: dataclasses.asdict(fit.status) for name, fit in comparison.fits.items()} == before
