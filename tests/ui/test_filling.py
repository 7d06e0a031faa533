"""From an image's infotext, or txt2img, to the form."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_estimate.hosts.standalone import infotext

pytest.importorskip("gradio", reason="gradio is not installed: pip install -e '.[app]'")
from embedding_estimate.ui import filling

INFOTEXT = """a (red:1.5) circle,
on a table
Negative prompt: blurry
Negative prompt: grey, (bad:1.2)
Steps: 25, Sampler: Euler a, Schedule type: Karras, CFG scale: 6.5, Seed: 12, Size: 512x768, Model: "a, b", ENSD: 1"""


def names(parameter: str) -> tuple[str, ...]:
    known = {"sampler": ("Euler a", "DPM++ 2M"), "schedule": ("Automatic", "Karras", "Exponential")}
    return known.get(parameter, ())


def test_an_infotext_is_split_as_the_webui_splits_it() -> None:
    assert infotext.parse(INFOTEXT) == {
        "Prompt": "a (red:1.5) circle,\non a table",
        "Negative prompt": "blurry\ngrey, (bad:1.2)",
        "Steps": "25",
        "Sampler": "Euler a",
        "Schedule type": "Karras",
        "CFG scale": "6.5",
        "Seed": "12",
        "Size-1": "512",
        "Size-2": "768",
        "Model": '"a, b"',
        "ENSD": "1",
    }


@pytest.mark.parametrize("text", ["", "a red circle", "one: a, two: b", "(a:1.2), (b:1.3)"])
def test_a_prompt_is_no_infotext(text: str) -> None:
    told = infotext.parse(text)
    assert told == {"Prompt": text, "Negative prompt": ""} and not filling.is_infotext(told)


def test_a_negative_prompt_is_enough_to_tell_one() -> None:
    told = infotext.parse("a\nNegative prompt: b")
    assert filling.is_infotext(told) and filling.read(told, False, names) == ({"text": "a", "other_prompt": "b"}, [])


@pytest.mark.parametrize("heading", ["parameters\n\n", "parameters\r\n", "\nparameters \n"])
def test_the_heading_in_png_info_is_no_part_of_a_prompt(heading: str) -> None:
    assert filling.bare(f"{heading}{INFOTEXT}") == INFOTEXT == filling.bare(INFOTEXT)
    for plain in ("", "parameters", "parameters\n", "a parameters\nb"):
        assert filling.bare(plain) == plain


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    values, _ = filling.read(infotext.parse(text), False, names)
    assert values.keys() <= set(filling.FILLED)


@pytest.mark.parametrize("negative", [False, True])
def test_each_side_goes_where_it_belongs(negative: bool) -> None:
    values, refused = filling.read(infotext.parse(INFOTEXT), negative, names)
    assert refused == []
    if negative:
        assert values["text"] == "blurry\ngrey, (bad:1.2)"
        assert values["other_prompt"] == "a (red:1.5) circle, on a table"  # each line would be a prompt
    else:
        assert values["text"] == "a (red:1.5) circle,\non a table"
        assert values["other_prompt"] == "blurry grey, (bad:1.2)"
    assert (values["sampler"], values["schedule"], values["steps"]) == ("Euler a", "Karras", 25)
    assert (values["guidance_scale"], values["width"], values["height"], values["seed"]) == (6.5, 512, 768, 12)


@pytest.mark.parametrize(
    ("told", "sampler", "schedule"),
    [
        ({"Sampler": "DPM++ 2M Karras"}, "DPM++ 2M", "Karras"),
        ({"Sampler": "DPM++ 2M Karras", "Schedule type": "Automatic"}, "DPM++ 2M", "Karras"),
        ({"Sampler": "DPM++ 2M"}, "DPM++ 2M", "Automatic"),
        ({"Sampler": "Euler a", "Schedule type": "Exponential"}, "Euler a", "Exponential"),
    ],
)
def test_a_sampler_of_any_age(told: dict[str, Any], sampler: str, schedule: str) -> None:
    values, refused = filling.read(told, False, names)
    assert (values["sampler"], values["schedule"], refused) == (sampler, schedule, [])


def test_what_the_form_cannot_take_is_said() -> None:
    told = {"Sampler": "PLMS", "Steps": "1e999", "Size-1": None, "CFG scale": 50}
    values, refused = filling.read(told, False, names)
    assert values.keys() == {"text", "other_prompt"}
    assert [line.partition(":")[0] for line in refused] == [
        "Sampler PLMS",
        "Steps 1e999",
        "CFG scale 50",
    ]
    assert refused[0].endswith("Sampler stays as it is")


@pytest.mark.parametrize("seed", [-1, "4294967295"])
def test_a_seed_that_is_random_or_too_large_is_left_out(seed: Any) -> None:
    assert filling.read({"Seed": seed}, False, names) == ({"text": "", "other_prompt": ""}, [])
