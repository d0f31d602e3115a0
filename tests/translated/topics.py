"""Topics: LDA with the words' labels collapsed by hand, and by enumeration in nested plates."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.ops.indexing import Vindex

from translated._registry import rng, zoo

VOCABULARY = 4


def _words() -> dict[str, Any]:
    return {"words": rng(24).integers(0, VOCABULARY, size=(3, 5))}


def _table() -> dict[str, Any]:
    return {"table": rng(25).integers(0, 5, size=(3, VOCABULARY)).astype(float)}


@zoo(_words, "words by document in a matrix, mixed word probabilities by a matrix product", quick=False)
def lda_collapsed(words: Any) -> None:
    with pyro.plate("topic", 2):
        topics = pyro.sample("topics", dist.Dirichlet(torch.ones(VOCABULARY)))
    with pyro.plate("documents", len(words)):
        shares = pyro.sample("shares", dist.Dirichlet(torch.ones(2) * 0.8))
        mixed = shares @ topics
        fn = dist.Categorical(mixed.unsqueeze(-2).expand(words.shape + (VOCABULARY,))).to_event(1)
        pyro.sample("words", fn, obs=words)


@zoo(_words, "labels of words enumerated in a plate inside the plate of documents", enumerated=True)
def lda_enumerated(words: Any) -> None:
    topics = pyro.sample("topics", dist.Dirichlet(torch.ones(2, VOCABULARY)).to_event(1))
    with pyro.plate("documents", words.shape[0], dim=-2):
        shares = pyro.sample("shares", dist.Dirichlet(torch.ones(2)))
        with pyro.plate("words", words.shape[1], dim=-1):
            z = pyro.sample("z", dist.Categorical(shares))
            pyro.sample("word", dist.Categorical(Vindex(topics)[z]), obs=words)


@zoo(
    _table,
    "document-term counts: Multinomial of a softmax of a bilinear form (correlated topics)",
    quick=False,
)
def correlated_topics(table: Any) -> None:
    word_logits = pyro.sample("word_logits", dist.Normal(torch.zeros(2, VOCABULARY), 1.0).to_event(2))
    with pyro.plate("documents", len(table)):
        scores = pyro.sample("scores", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        mixed = torch.softmax(scores, -1) @ torch.softmax(word_logits, -1)
        pyro.sample("table", dist.Multinomial(probs=mixed, validate_args=False), obs=table)
