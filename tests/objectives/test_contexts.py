"""The prompts that embeddings are trained in."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from toy import ToyModel

from embedding_estimate.demo import demo_model_path
from embedding_estimate.hosts.standalone.host import StandaloneHost
from embedding_estimate.model.contexts import NEGATIVE_PROMPTS, PROMPTS, Contexts
from embedding_estimate.objectives.prompts import FEW, contexts_of, templates_of
from embedding_estimate.settings import Settings
from embedding_estimate.teaching.batches import USUAL
from embedding_estimate.teaching.plan import phases
from embedding_estimate.teaching.teacher import Task, Teacher

DEMO = json.loads((demo_model_path() / "contexts.json").read_text("utf-8"))
VECTORS = 20
ALL = {
    "everybody's": PROMPTS,
    "everybody's negative": NEGATIVE_PROMPTS,
    "demo": Contexts(**DEMO["prompt"]),
    "demo negative": Contexts(**DEMO["negative"]),
}


@pytest.mark.parametrize("name", ALL)
def test_contexts_are_trained_in_or_chosen_by(name: str) -> None:
    """With the bare prompt they are whole batches of the default size."""
    contexts = ALL[name]
    every = [*contexts.train, *contexts.select, *contexts.report]
    assert len(set(every)) == len(every)
    assert (len(contexts.train), len(contexts.select), len(contexts.report)) == (63, 7, 12)
    batch = USUAL
    assert (1 + len(contexts.train)) % batch == 0 and (1 + len(contexts.select)) % batch == 0


@pytest.mark.parametrize("name", ALL)
def test_the_embedding_stands_at_the_start_in_the_middle_and_at_the_end(name: str) -> None:
    for contexts in (ALL[name].train, ALL[name].select, ALL[name].report):
        assert all(context.count("{}") == 1 and context != "{}" for context in contexts)
        starts = sum(context.startswith("{}") for context in contexts)
        ends = sum(context.endswith("{}") for context in contexts)
        assert starts > 0 and ends > 0 and starts + ends < len(contexts)


@pytest.mark.parametrize("name", ALL)
def test_none_to_train_in_begins_as_one_to_choose_by_or_to_report_in(name: str) -> None:
    """The text encoder is causal: an embedding's own rows depend on what stands before it and on nothing else."""

    def before(context: str) -> str:
        return re.sub(r"\(|:[\d.]+\)", "", context).partition("{}")[0].strip(" ,")

    contexts = ALL[name]
    others = {before(context) for context in (*contexts.select, *contexts.report)}
    begun = [before(context) for context in contexts.train]
    assert [text for text in begun if text and text in others] == []
    assert begun.count("") in range(19, 24)  # a third, the bare prompt not counted


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_three_to_train_in_are_longer_than_a_chunk_and_one_of_each_other_list(name: str) -> None:
    """With an embedding of up to twenty vectors. It stands in the first chunk or in the second, and not between them:
    words may be parted there, and an embedding moves to the second as a whole."""
    with StandaloneHost.load(demo_model_path()).borrow() as model:
        chunk = model.info.chunk_tokens
        for contexts, long in ((ALL[name].train, 3), (ALL[name].select, 1), (ALL[name].report, 1)):
            tokens = [[len(model.token_ids(part)) for part in context.split("{}")] for context in contexts]
            assert sum(sum(parts) + VECTORS > chunk for parts in tokens) == long
            assert all(before >= chunk or before + VECTORS <= chunk for before, _ in tokens)


def chosen(toy: ToyModel, **values: Any) -> tuple[Contexts, tuple[str, ...]]:
    settings = Settings(**{"text": "red circle", **values})
    teacher = Teacher(toy, Task.of(settings, toy))
    phase = phases(settings)[-1]
    return contexts_of(phase, teacher), templates_of(phase, teacher)


def test_the_models_contexts_are_taken_where_the_settings_have_no_templates(toy: ToyModel) -> None:
    info = toy.info
    contexts, few = chosen(toy)
    assert contexts == replace(info.contexts, train=("{}", *info.contexts.train), select=("{}", *info.contexts.select))
    assert few == contexts.train[:FEW]
    contexts, _ = chosen(toy, prompt_type="Negative Prompt")
    own = info.negative_contexts
    assert contexts == replace(own, train=("{}", *own.train), select=("{}", *own.select))


def test_for_use_alone_there_are_no_words_around(toy: ToyModel) -> None:
    contexts, few = chosen(toy, use="Alone")
    assert (contexts.train, contexts.select, few) == (("{}",), ("{}",), ("{}",))
    assert chosen(toy, use="Alone", templates="{}\n") == (contexts, few)


def test_templates_of_the_settings_go_first(toy: ToyModel) -> None:
    contexts, few = chosen(toy, templates="{}\nbig {}\n{} star\na {}")
    assert contexts == replace(toy.info.contexts, train=few, select=few) and few == ("{}", "big {}", "{} star", "a {}")


def test_a_composed_prompt_is_trained_by_itself(toy: ToyModel) -> None:
    assert chosen(toy, text="red AND green")[1] == ("{}",)
