"""`estimate --dry-run` shows the plan and leaves nothing behind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command_line import QUICK, Run, files, last
from suites import quick_first
from toy import ToyHost

from embedding_estimate.files.embedding import read

UNET = ("--part", "U-Net", "--templates", "{}", "--optimizer", "RMSprop", "--rate", "0.1", "--early-stop", "2")


def test_the_plan_is_printed_and_nothing_written(run: Run, toy_host: ToyHost, tmp_path: Path) -> None:
    result = run("estimate", "(red:1.5) circle", "--name", "madeup", *QUICK, "--measure", "Nothing", "--dry-run")
    assert result.exit_code == 0, result.output
    assert re.sub(r"\d+\.\d", "S", result.stdout) == (
        "madeup: 2 vectors\n"
        "\n"
        "phases:\n"
        "  1. Attention: LBFGS at rate 1, loss MSE, 10 learning steps, 3 contexts\n"
        "     latents from Euler, Karras, 4 sampling steps, CFG scale 7\n"
        "\n"
        "passes of the U-Net, of one latent each:\n"
        "  prepare   152 forward, 48 backward\n"
        "  train     none\n"
        "  measure   none\n"
        "\n"
        "seconds on this machine: about S (prepare S, train S, measure S)\n"
        "memory on top of the model: about 0 MB\n"
        "\n"
        "This was a dry run: nothing was trained or saved.\n"
    )
    assert files(tmp_path) == []


def test_the_plan_is_what_the_run_then_counts(run: Run) -> None:
    options = ("estimate", "(red:1.5) circle", "--name", "madeup", *QUICK, "--json")
    plan, done = last(run(*options, "--dry-run")), last(run(*options))
    assert list(done["passes"]) == list(plan["passes"]) == ["prepare", "train", "measure"]
    for stage, counted in done["passes"].items():
        (fewest, most), (fewest_back, most_back) = plan["passes"][stage].values()
        assert fewest <= counted["forwards"] <= most and fewest_back <= counted["backwards"] <= most_back
    assert plan["passes"]["prepare"] == {name: [number] * 2 for name, number in done["passes"]["prepare"].items()}
    both = [done["passes"][stage] for stage in ("prepare", "train")]
    assert done["unet_forwards"] == sum(passes["forwards"] for passes in both)
    assert done["unet_backwards"] == sum(passes["backwards"] for passes in both)
    assert plan["tokens"] == done["tokens"] and [phase["steps"] for phase in plan["phases"]] == [done["steps"]]
    seconds = plan["seconds"]
    assert list(seconds) == [*plan["passes"], "total"] and min(seconds.values()) > 0
    assert seconds["total"] == pytest.approx(sum(seconds[stage] for stage in plan["passes"]))
    assert plan["memory"]["total"] == sum(size for name, size in plan["memory"].items() if name != "total") > 0


def test_each_phase_says_how_it_is_trained(run: Run) -> None:
    result = run(
        *("estimate", "(red:1.5) circle", "--name", "madeup", *QUICK, *UNET, "--scheduler", "cosine"),
        *("--typed-weight", "0", "--measure", "Nothing", "--dry-run", "--json"),
    )
    assert "madeup: 2 vectors, typed with a weight that is found\n" in result.stdout
    assert (
        "  1. U-Net: RMSprop at rate 0.1, cosine rate, loss MSE, 10 learning steps, 1 context, "
        "early stop after 2 checks without progress, finds the weight of the name, with more steps for its trials\n"
    ) in result.stdout
    (phase,) = last(result)["phases"]
    assert phase == {
        "part": "U-Net",
        "optimizer": "RMSprop",
        "rate": 0.1,
        "most_rate": 0.1,
        "scheduler": "cosine",
        "loss": "MSE",
        "steps": 10,
        "early_stop": 2,
        "finds_weight": True,
        "finds_words": False,
        "contexts": ["{}"],
        "stages": [{"steps": 10, "contexts": 1}],
        "trajectory": {"sampler": "Euler", "schedule": "Karras", "steps": 4, "guidance_scale": 7.0},
    }
    assert last(result)["typed_weight"] == 0


def test_the_plan_tells_of_contexts_that_come_later(run: Run) -> None:
    templates = "\n".join("a " * number + "{} star" for number in range(32))
    settings = ("--name", "madeup", *QUICK, "--learning-steps", "50", "--templates", templates, "--dry-run")
    said = run("estimate", "(red:1.5) circle", *settings, "--measure", "Nothing").stdout
    assert "loss MSE, 30 learning steps, 32 contexts (16 of them in the first 20)\n" in said
    result = run("estimate", "(red:1.5) circle", *settings, "--measure", "Nothing", "--json")
    _, attention = last(result)["phases"]
    assert attention["stages"] == [{"steps": 20, "contexts": 16}, {"steps": 10, "contexts": 32}]


@pytest.mark.usefixtures("brief")
def test_images_of_quick_figures_are_made_for_a_report_only(run: Run) -> None:
    def measured(*options: str) -> tuple[int, str]:
        plain = ("(red:1.5) circle", "--name", "madeup", *QUICK, "--part", "Transformer")
        result = run("estimate", *plain, "--dry-run", "--json", *options)
        return last(result)["passes"]["measure"]["forwards"][1], result.stderr

    hidden = "--measure Quick with images: no images without --report, which shows them"
    quick, _ = measured("--measure", "Quick")
    by_effort, said = measured()
    assert by_effort == quick and hidden not in said
    typed, said = measured("--measure", "quick with images")
    assert typed == quick and hidden in said
    shown, said = measured("--report", "it.png")
    assert shown > quick and hidden not in said
    thorough, said = measured("--effort", "thorough")
    assert thorough == measured("--measure", "Full with images")[0] > quick and hidden not in said


def test_a_prompt_that_needs_no_training_says_so(run: Run) -> None:
    result = run("estimate", "red circle", "--name", "madeup", "--measure", "Nothing", "--dry-run", "--json")
    assert "  none; the prompt's own token vectors have exactly its effect: no training is needed\n" in result.stdout
    assert last(result)["exact"] is True and last(result)["phases"] == []


@pytest.mark.parametrize(
    ("options", "words", "weights"),
    quick_first(
        1,
        [
            (("--words", "One per weight"), "in 2 words with the weights 1.5, 0.6", [[1.5, 0.6]]),
            (("--words", "As few as needed"), "in 1 or 2 words, as few as reach the goal", [[1.0], [1.5, 0.6]]),
            (("--typed-weight", "1.2"), "typed with the weight 1.2", []),
        ],
    ),
)
def test_how_the_name_is_typed(run: Run, options: tuple[str, ...], words: str, weights: list[list[float]]) -> None:
    prompt = ("(red:1.5) (circle blue:0.6)", "--name", "madeup", "--learning-steps", "3", "--steps", "2")
    result = run("estimate", *prompt, "--tokens", "2", "--measure", "Nothing", *options, "--dry-run", "--json")
    assert f"madeup: 2 vectors, {words}\n" in result.stdout, result.output
    assert [[word["weight"] for word in plan] for plan in last(result)["words"]] == weights


def test_what_does_not_go_with_a_dry_run(run: Run, loads: list[dict[str, object]], tmp_path: Path) -> None:
    both = run("estimate", "(red:1.5)", "--curve", "1,2", "--dry-run")
    assert both.exit_code == 2 and not loads
    assert both.stderr.endswith(
        "Error: --dry-run: shows the plan of one estimate; leave it out, or leave --curve out\n"
    )
    drawn = run("estimate", "(red:1.5)", "--name", "madeup", *QUICK, "--report", "r.png", "--dry-run")
    assert drawn.exit_code == 0 and files(tmp_path) == []
    assert "Note: --report: no effect with --dry-run, which draws nothing\n" in drawn.stderr


def test_a_name_that_is_taken_is_refused(run: Run, loads: list[dict[str, object]], tmp_path: Path) -> None:
    (tmp_path / "embeddings").mkdir()
    (tmp_path / "embeddings" / "madeup.pt").touch()
    result = run("estimate", "(red:1.5)", "--name", "madeup", *QUICK, "--dry-run")
    assert result.exit_code == 2 and "has this name" in result.stderr and not loads


def test_seconds_choose_the_effort_that_the_file_then_tells(run: Run, tmp_path: Path) -> None:
    options = ("estimate", "(red:1.5) circle", "--name", "madeup", *QUICK, "--measure", "Nothing")
    plan = run(*options, "--seconds", "0.000001", "--dry-run")
    assert "Note: seconds=1e-06: even effort Quick is expected to take about" in plan.stderr
    done = run(*options, "--seconds", "80000")
    assert done.exit_code == 0 and "Note: seconds=80000: effort Thorough is expected to take about" in done.stderr
    recorded = read(tmp_path / "embeddings" / "madeup.safetensors").provenance["settings"]
    assert (recorded["effort"], recorded["seconds"]) == ("Thorough", 0)
