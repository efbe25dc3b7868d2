"""Where the batches of each training come from, the same whenever asked for, and what its dev curve measures."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from search.mini.checkpoint import load_model
from search.mini.corpus import (
    BATCHES_PER_CHUNK,
    Batch,
    Document,
    drill_documents,
    in_batches,
    label_batch,
    policy_documents,
    prm_documents,
    solution_batch,
)
from search.mini.evaluate import attempts, labelled_documents, policy_figures, prm_figures
from search.mini.model import MiniModel, ModelShape, grown, initialise
from search.mini.problems import problems
from search.mini.recipes import Recipe
from search.mini.solutions import DRAFT_RATES, TARGET_RATES
from search.mini.tokenizer import token_id, vocab_size
from search.mini.wording import BAD_LABEL, GOOD_LABEL, NAMES

#: Train problems for the PRM's on-policy solutions start here, far from those of the written corpora.
POLICY_PROBLEMS_START = 10_000_000


class PolicySource:
    """Written solutions with a policy's slips, and its dev problems."""

    def __init__(self, recipe: Recipe, seed: int) -> None:
        self._recipe = recipe
        self._name = f"{recipe.role}/{seed}"
        self._seed = seed
        self._rates = TARGET_RATES if recipe.role == "target" else DRAFT_RATES
        self._dev = list(problems("dev", recipe.num_eval_problems))

    def start(self) -> MiniModel:
        """A model with fresh weights."""
        recipe = self._recipe
        shape = ModelShape(vocab_size(), recipe.num_layers, recipe.dim, recipe.num_heads, recipe.mlp_dim)
        model = MiniModel(shape)
        initialise(model, self._seed)
        return model

    def batches(self, chunk: int) -> list[Batch]:
        """Fresh solutions to fresh problems."""
        size = self._recipe.batch_documents
        documents = policy_documents(self._name, chunk, size * BATCHES_PER_CHUNK, self._rates)
        order = random.Random(f"{self._name}/order/{chunk}")
        return [solution_batch(part) for part in in_batches(documents, size, order)]

    def evaluate(self, model: MiniModel) -> dict[str, float]:
        """Pass rates on dev problems."""
        return policy_figures(model, self._dev)


class PrmSource:
    """Written solutions of mixed quality, then also the policies' own, labelled by the checker."""

    def __init__(self, recipe: Recipe, seed: int, policies: Path) -> None:
        self._recipe = recipe
        self._name = f"prm/{seed}"
        self._seed = seed
        self._policies = policies
        self._target = load_model(policies / "target")
        self._num_layers = max(recipe.num_layers, self._target.shape.num_layers)
        self._pool: list[Document] = []
        self._dev: dict[str, list[Document]] = {}

    def start(self) -> MiniModel:
        """The target with more layers on top.

        The head's label rows start as those of the words that usually follow a step, so that training starts calm.
        """
        model = grown(self._target, self._num_layers, self._seed)
        starts = [token_id(word) for word in (*NAMES, "She", "He", "The")]
        with torch.no_grad():
            usual = model.lm_head.weight[starts].mean(0)
            for label in (GOOD_LABEL, BAD_LABEL):
                model.lm_head.weight[token_id(label)] = usual
        return model

    def batches(self, chunk: int) -> list[Batch]:
        """Drills and written solutions; after the recipe's start, also the policies' own."""
        recipe = self._recipe
        size = recipe.batch_documents
        count = size * BATCHES_PER_CHUNK
        order = random.Random(f"{self._name}/order/{chunk}")
        later = chunk * BATCHES_PER_CHUNK >= recipe.policy_start * recipe.num_steps
        num_drills = round((recipe.drill_share_later if later else recipe.drill_share) * count)
        num_policy = round(recipe.policy_share * count) if later else 0
        documents = order.choices(self._policy_documents(), k=num_policy) if num_policy else []
        documents.extend(drill_documents(self._name, chunk, num_drills))
        documents.extend(prm_documents(self._name, chunk, count - num_drills - num_policy))
        return [label_batch(part, recipe.writing_weight) for part in in_batches(documents, size, order)]

    def evaluate(self, model: MiniModel) -> dict[str, float]:
        """Step AUC on the target's and on the draft's dev solutions."""
        target = prm_figures(model, self._dev_documents("target"))
        draft = prm_figures(model, self._dev_documents("draft"))
        return {**target, **{f"draft_{name}": value for name, value in draft.items()}}

    def _policy_documents(self) -> list[Document]:
        """Both policies' own solutions to train problems, sampled when first wanted."""
        if not self._pool:
            recipe = self._recipe
            stories = list(problems("train", recipe.policy_problems, POLICY_PROBLEMS_START))
            for model in (self._target, load_model(self._policies / "draft")):
                tries = attempts(model, stories, self._seed + 1, num_samples=recipe.policy_samples)
                self._pool.extend(labelled_documents(stories, tries))
        return self._pool

    def _dev_documents(self, name: str) -> list[Document]:
        """A policy's own solutions to dev problems, sampled when first wanted."""
        if name not in self._dev:
            dev = list(problems("dev", self._recipe.num_eval_problems))
            tries = attempts(load_model(self._policies / name), dev, self._seed + 2, num_samples=2)
            self._dev[name] = labelled_documents(dev, tries)
        return self._dev[name]
