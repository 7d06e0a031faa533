"""A job's progress as bars of tqdm, in a notebook or in a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from embedding_estimate.fidelity.wording import PHASES

if TYPE_CHECKING:
    from typing_extensions import Self

    from embedding_estimate.progress import Progress


class ProgressBars:
    """One bar for each phase of a job, called with each `Progress`; as a context manager it closes the last one."""

    def __init__(self, prefix: str = "") -> None:
        """`prefix` is what each bar's label begins with."""
        self.prefix = prefix
        self._phase = ""
        self._bar: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __call__(self, progress: Progress) -> None:
        if progress.phase != self._phase:
            self.close()
            self._phase = progress.phase
            self._bar = self.opened(self._label(), progress.total)
        if progress.loss is not None and progress.explained is not None:
            self._bar.set_description_str(f"{self._label()} ({progress.stretch})", refresh=False)
            figures = f"loss {progress.loss:.3f}, explained {progress.explained:.3f}"
            self._bar.set_postfix_str(figures, refresh=False)
        self._bar.total = progress.total
        self._bar.update(progress.done - self._bar.n)

    def opened(self, label: str, total: int) -> Any:
        """A new bar: a widget in a notebook that has ipywidgets, text on stderr elsewhere."""
        from tqdm.auto import tqdm

        return tqdm(desc=label, total=total)

    def _label(self) -> str:
        return f"{self.prefix}{PHASES[self._phase]}"

    def close(self) -> None:
        """Ends the bar that is shown."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
