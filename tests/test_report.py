"""The report: one page that loads nothing, says all, escapes what users write, and works in a browser."""

import dataclasses
import json
import logging
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest

import ppl_lvm as lvm
from ppl_lvm import EM, NUTS, SVI, ImportanceSampling, models
from ppl_lvm.report import write_report
from ppl_lvm.report._context import support
from ppl_lvm.report._story import as_text, formula, story_of
from ppl_lvm.report._tables import show

EVIL_FEATURE = '<b>&"petal'
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
    rng = np.random.default_rng(3)
    rows = np.concatenate([rng.normal(0, 1, (60, 2)), rng.normal(5, 1, (40, 2))])
    x = pd.DataFrame(rows, columns=["length (cm)", EVIL_FEATURE])
    mixture = models.GaussianMixture(num_components=2, covariance="diag")
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
        "no reference": lvm.compare(fits),
        "points": lvm.compare({"em": fits["em"]}),
        "loaded without data": lvm.compare(stored, reference="nuts"),
        "a plain function": lvm.compare({"vi": lvm.fit(schools, y, SVI(num_steps=50, window=10))}),
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
        "quantities",
        "pictures",
        "evidence",
        "settings",
        "method",
    ]


def test_model_and_data_are_described(pages: dict[str, Page]) -> None:
    text = "".join(pages["reference"].inside("model").text)
    for word in (
        "GaussianMixture(num_components=2",
        "100 rows",
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
    assert len(pages["reference"].inside("pictures").all("img")) == 10


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

DRIVE = """
<script>
addEventListener("load", () => {
  const table = document.getElementById("table");
  const value = (cell) => cell.dataset.key ?? cell.textContent;
  const column = (i) => Array.from(table.tBodies[0].rows, (row) => value(row.cells[i]));
  const shown = () => Array.from(table.tBodies[0].rows).filter((row) => !row.hidden).length;
  const heads = Array.from(table.tHead.rows[0].cells);
  const at = heads.findIndex((head) => head.textContent.startsWith("sd"));
  const found = {before: column(1), words: heads.map((head) => head.querySelector("button").textContent)};
  heads[at].querySelector("button").click();
  found.rising = column(at);
  found.sort = heads.map((head) => head.getAttribute("aria-sort"));
  heads[at].querySelector("button").click();
  found.falling = column(at);
  heads[1].querySelector("button").focus();
  found.focused = document.activeElement === heads[1].querySelector("button");
  heads[1].querySelector("button").click();
  found.quantities = column(1);
  const box = document.getElementById("filter");
  box.value = "vi LOC";
  box.dispatchEvent(new Event("input"));
  found.filtered = shown();
  found.count = document.getElementById("count").textContent;
  found.images = Array.from(document.images, (image) => image.complete && image.naturalWidth > 0);
  found.wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
  const note = document.createElement("div");
  note.id = "found";
  note.textContent = JSON.stringify(found);
  document.body.append(note);
});
</script>
</body>"""
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--virtual-time-budget=5000"),
    *("--enable-logging=stderr", "--v=0"),
)


@pytest.fixture(scope="module")
def browser() -> str:
    for name in BROWSERS:
        if found := shutil.which(name):
            return found
    pytest.skip(f"no browser to try the page in: none of {', '.join(BROWSERS)} is installed")


def visit(browser: str, page: Path, folder: Path, width: int) -> tuple[str, str]:
    """The page's elements after its script has run, and what the console said."""
    command = [
        browser,
        *FLAGS,
        f"--window-size={width},900",
        f"--user-data-dir={folder}",
        "--dump-dom",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


@pytest.mark.parametrize("width", [1280, 500])
def test_the_page_works_in_a_browser(
    browser: str, width: int, written: dict[str, Path], comparisons: dict[str, lvm.Comparison], tmp_path: Path
) -> None:
    source = written["reference"].read_text("utf-8")
    driven = tmp_path / "driven.html"
    driven.write_text(source.replace("</body>", DRIVE), "utf-8")
    dom, console = visit(browser, driven, tmp_path / "profile", width)
    assert console == ""
    answer = re.search(r'<div id="found">(.*?)</div>', dom, re.DOTALL)
    assert answer, dom[-500:]
    found = json.loads(unescape(answer[1]))
    table = comparisons["reference"].table
    sds = table["sd"].dropna().to_numpy()
    missing = [""] * int(table["sd"].isna().sum())
    assert missing  # the point has none: missing values stay last whichever way round
    assert found["words"][:3] == ["fit", "quantity", "mean"]
    assert [float(v) for v in found["rising"][: len(sds)]] == sorted(sds)
    assert [float(v) for v in found["falling"][: len(sds)]] == sorted(sds, reverse=True)
    assert found["rising"][len(sds) :] == found["falling"][len(sds) :] == missing
    assert [s for s in found["sort"] if s] == ["ascending"]
    assert found["focused"]
    assert sorted(found["quantities"]) == sorted(found["before"])
    assert found["quantities"] != found["before"]
    names = [f"{fit} {quantity}".lower() for fit, quantity in table.index]
    assert found["filtered"] == sum("vi" in name and "loc" in name for name in names)
    assert found["count"] == f"{found['filtered']} of {len(table)} rows"
    assert all(found["images"])
    assert not found["wide"]  # wide tables scroll in their own box, the page does not


@pytest.mark.parametrize("case", CASES)
def test_the_console_stays_silent(browser: str, case: str, written: dict[str, Path], tmp_path: Path) -> None:
    _, console = visit(browser, written[case], tmp_path / "profile", 1280)
    assert console == ""


def test_a_planted_error_is_heard(browser: str, written: dict[str, Path], tmp_path: Path) -> None:
    source = written["points"].read_text("utf-8")
    broken = tmp_path / "broken.html"
    broken.write_text(
        source.replace("</body>", "<script>undefined.x</script><img src='http://localhost/x.png'></body>")
    )
    _, console = visit(browser, broken, tmp_path / "profile", 1280)
    assert "TypeError" in console
    assert "Content Security Policy" in console


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
