"""The effort that fits in so many seconds."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from toy import ToyHost

from embedding_estimate.errors import Interrupted, PromptError
from embedding_estimate.estimation import dry_run
from embedding_estimate.estimation.curve import curve
from embedding_estimate.estimation.dry_run import within_seconds
from embedding_estimate.estimation.listener import Listener
from embedding_estimate.estimation.trainer import estimate
from embedding_estimate.progress import StopToken
from embedding_estimate.settings import Settings

EXPECTED = {"Quick": 10.0, "Balanced": 20.0, "Thorough": 40.0}
FOREVER = 80_000.0


def settings(**values: Any) -> Settings:
    return Settings(**{"text": "(red:1.5) circle", "name": "madeup", "steps": 4, "measure": "Nothing", **values})


@pytest.mark.parametrize(
    ("seconds", "effort", "said"),
    [
        (9.0, "Quick", "seconds=9: even effort Quick is expected to take about 10 s"),
        (10.5, "Quick", "seconds=10.5: effort Quick is expected to take about 10 s"),
        (20.5, "Balanced", "seconds=20.5: effort Balanced is expected to take about 20 s"),
        (39.0, "Balanced", "seconds=39: effort Balanced is expected to take about 20 s"),
        (41.0, "Thorough", "seconds=41: effort Thorough is expected to take about 40 s"),
    ],
)
def test_the_highest_effort_that_fits(seconds: float, effort: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def planned(settings: Settings, host: Any, **others: Any) -> Any:
        assert settings.seconds == 0
        return SimpleNamespace(duration=SimpleNamespace(total=EXPECTED[settings.effort]))

    monkeypatch.setattr(dry_run, "dry_run", planned)
    monkeypatch.setattr(time, "monotonic", lambda: 7.0)
    notes: list[str] = []
    progress: list[tuple[str, int, int]] = []
    listener = Listener(on_notes=notes.extend, on_progress=lambda to: progress.append((to.phase, to.done, to.total)))
    assert within_seconds(settings(seconds=seconds), ToyHost(), listener) == settings(effort=effort)
    assert notes == [said] and progress == [("effort", 0, 2), ("effort", 1, 2)]


def test_finding_out_counts_among_the_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 100, 5))  # each plan takes five seconds
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(
        dry_run,
        "dry_run",
        lambda settings, *_, **__: SimpleNamespace(duration=SimpleNamespace(total=EXPECTED[settings.effort])),
    )
    assert within_seconds(settings(seconds=24.0), ToyHost()).effort == "Quick"
    assert within_seconds(settings(seconds=25.0), ToyHost()).effort == "Balanced"


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "effort"), [(FOREVER, "Thorough"), (1e-6, "Quick")])
def test_by_real_plans(seconds: float, effort: str) -> None:
    host = ToyHost()
    assert within_seconds(settings(seconds=seconds, effort="Balanced"), host) == settings(effort=effort)
    assert dry_run.dry_run(settings(seconds=seconds), host).begun.settings.effort == effort


def test_without_seconds_nothing_is_asked() -> None:
    host = ToyHost()
    assert within_seconds(settings(effort="Quick"), host) == settings(effort="Quick") and host.model.denoised == 0


def test_what_cannot_be_estimated_is_refused_as_ever() -> None:
    stop = StopToken()
    stop.stop(save=True)
    with pytest.raises(Interrupted):
        within_seconds(settings(seconds=9.0), ToyHost(), stop=stop)
    with pytest.raises(PromptError, match="does what the empty prompt does"):
        within_seconds(settings(seconds=9.0, text=","), ToyHost())


@pytest.mark.slow
def test_a_curve_takes_its_steps_by_the_seconds() -> None:
    notes: list[str] = []
    steps: list[int] = []
    made = curve(
        settings(seconds=FOREVER, part="Transformer", text="red circle"),
        ToyHost(),
        [1],
        on_notes=notes.extend,
        on_progress=lambda tokens: lambda progress: steps.append(progress.total),
        stop=StopToken(),
    )
    assert len(list(made)) == 1 and "effort Thorough" in notes[0]
    thorough = estimate(settings(effort="Thorough", part="Transformer", text="red circle", tokens=1), ToyHost()).steps
    assert thorough in steps
