"""The HTTP API, the same in a WebUI and in the app.

    POST /embedding-estimate/v1/estimate            all settings as JSON; starts a job
    POST /embedding-estimate/v1/plan                the same; finds out what it would take, as a job
    GET  /embedding-estimate/v1/jobs/{id}           progress, curve and result; ?since=STEP: only the curve after it
    POST /embedding-estimate/v1/jobs/{id}/measure   measures what a job has saved by the whole protocol, as a job
    POST /embedding-estimate/v1/jobs/{id}/stop      keeps the best vectors so far; ?save=false discards them
    GET  /embedding-estimate/v1/embeddings          the embeddings in the folder
    GET  /embedding-estimate/v1/cut-off             estimates that a kill or a crash has cut off
    POST /embedding-estimate/v1/cut-off/{name}      goes on with one; starts a job
    DELETE /embedding-estimate/v1/cut-off/{name}    discards what it had reached

Wrong settings and a taken name are answered with 422, a second job with 409. The `detail` of every refusal is a list of
lines, the same lines as everywhere.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from fastapi import APIRouter, Body, Depends, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from embedding_estimate.errors import Busy, EstimateError, SettingsError, quoted
from embedding_estimate.estimation import summary
from embedding_estimate.files import names
from embedding_estimate.jobs import resuming
from embedding_estimate.jobs.job import Job, Plan
from embedding_estimate.jobs.jobs import Jobs
from embedding_estimate.settings import PARAMETERS, Settings
from embedding_estimate.settings.parameters import Parameter
from embedding_estimate.storage.resuming import CutOff

Answer = TypeVar("Answer")

PREFIX = "/embedding-estimate/v1"
UNAUTHORISED = "user or password is missing or wrong: give those that the program was started with, by HTTP Basic"
TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}  # as JSON Schema calls them


def router(
    jobs: Jobs, embeddings: Callable[[], Path], authorised: Callable[..., Any], defaults: Mapping[str, Any]
) -> APIRouter:
    """The routes. `authorised` is a FastAPI dependency that raises if a caller may not use them; it guards all routes.

    `defaults` replace the settings' own defaults for what a request leaves out.
    """
    routes = APIRouter(
        prefix=PREFIX, tags=["embedding estimate"], dependencies=[Depends(authorised)], route_class=RefusingInLines
    )
    settings = {"requestBody": {"content": {"application/json": {"schema": schema(defaults)}}, "required": True}}

    @routes.post("/estimate", summary="Start an estimate", openapi_extra=settings)
    def start(values: Any = Body()) -> dict[str, Any]:
        return _begun(jobs.start, defaults, values)

    @routes.post("/plan", summary="Find out what an estimate would take", openapi_extra=settings)
    def plan(values: Any = Body()) -> dict[str, Any]:
        return _begun(jobs.plan, defaults, values)

    @routes.get("/jobs/{job_id}", summary="Progress and result of a job")
    def status(job_id: str, since: int = 0) -> dict[str, Any]:
        described: dict[str, Any] = _sendable(summary.finite(_described(_found(jobs, job_id), since)))
        return described

    @routes.post("/jobs/{job_id}/measure", summary="Measure fully what a job has saved")
    def measure(job_id: str) -> dict[str, Any]:
        job = _found(jobs, job_id)
        return {"job": _unless_refused(lambda: jobs.measure(job.id)).id}

    @routes.post("/jobs/{job_id}/stop", summary="Stop a job")
    def stop(job_id: str, save: bool = True) -> dict[str, Any]:
        job = _found(jobs, job_id)
        job.interrupt(save=save)
        return {"job": job.id, "state": job.state}

    @routes.get("/embeddings", summary="The embeddings in the folder")
    def listed() -> dict[str, Any]:
        folder = embeddings()
        paths = [path for path in names.files(folder) if path.suffix.lower() in names.EXTENSIONS]
        answer: dict[str, Any] = _sendable({"embeddings": [_entry(path, folder) for path in sorted(paths)]})
        return answer

    @routes.get("/cut-off", summary="Estimates that were cut off")
    def cut_off() -> dict[str, Any]:
        answer: dict[str, Any] = _sendable({"cut_off": [_cut_off(one) for one in resuming.cut_off(jobs)]})
        return answer

    @routes.post("/cut-off/{name}", summary="Go on with an estimate that was cut off")
    def resume(name: str) -> dict[str, Any]:
        return {"job": _unless_refused(lambda: resuming.resume(jobs, name)).id}

    @routes.delete("/cut-off/{name}", summary="Discard an estimate that was cut off")
    def discard(name: str) -> dict[str, Any]:
        _unless_refused(lambda: resuming.discard(jobs, name))
        return {"discarded": name}

    return routes


class RefusingInLines(APIRoute):
    """A route that also answers with lines if FastAPI cannot read the request."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                lines = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
                raise HTTPException(422, lines) from error

        return handled


def schema(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """JSON Schema of the settings. `defaults` replace the settings' own."""
    required = [parameter.name for parameter in PARAMETERS if parameter.name in ("text", "name")]
    properties = {
        parameter.name: _property(replace(parameter, default=defaults.get(parameter.name, parameter.default)))
        for parameter in PARAMETERS
    }
    return {"type": "object", "title": "Settings", "properties": properties, "required": required}


def _property(parameter: Parameter) -> Mapping[str, Any]:
    facts = {
        "type": TYPES[parameter.kind],
        "title": parameter.label,
        "description": f"{parameter.help} Unit: {parameter.unit}." if parameter.unit else parameter.help,
        "default": parameter.default,
        "minimum": parameter.minimum,
        "maximum": parameter.maximum,
        "enum": parameter.choices or None,
        "maxLength": parameter.longest,
    }
    return {key: value for key, value in facts.items() if value is not None}


def _begun(begin: Callable[[Settings], Job], defaults: Mapping[str, Any], values: Any) -> dict[str, Any]:
    """A job of the settings in a request."""
    if not isinstance(values, dict):
        raise HTTPException(422, ["the body is not a JSON object: give the settings as {name: value}"])
    return {"job": _unless_refused(lambda: begin(Settings.from_mapping({**defaults, **values}))).id}


def _unless_refused(act: Callable[[], Answer]) -> Answer:
    """What it returns. Raises `HTTPException` with the lines of what is wrong."""
    try:
        return act()
    except SettingsError as error:
        raise HTTPException(422, error.problems) from error
    except Busy as error:
        raise HTTPException(409, [str(error)]) from error
    except EstimateError as error:
        raise HTTPException(422, [str(error)]) from error


def _found(jobs: Jobs, job_id: str) -> Job:
    job = jobs.find(job_id)
    if job is None:
        raise HTTPException(
            404, [f"job {quoted(job_id)} is unknown: only recent jobs are kept; use the id that the start returned"]
        )
    return job


def _described(job: Job, since: int) -> dict[str, Any]:
    """The answer about a job, with its curve after the step `since`."""
    progress, saved = job.progress, job.saved
    return {
        "job": job.id,
        "state": job.state,
        "phase": progress.phase if progress else None,
        "done": progress.done if progress else 0,
        "total": progress.total if progress else 0,
        "seconds_left": job.seconds_left,
        "curve": [
            {**reading._asdict(), "stretch": stretch.name}
            for stretch in list(job.curve.stretches)
            for reading in stretch.readings
            if reading.step > since
        ],
        "notes": list(job.notes),
        "problems": list(job.problems),
        "result": summary.of_estimate(job.settings, saved.estimate, saved.paths, saved.seconds, job.stop.stopped)
        if saved
        else None,
        "plan": (job.facts or None) if isinstance(job, Plan) else None,
    }


def _cut_off(one: CutOff) -> dict[str, Any]:
    return {
        "name": one.name,
        "step": one.step,
        "steps": one.steps,
        "date": one.date.isoformat(timespec="seconds"),
        "problem": one.problem or None,
    }


def _sendable(value: Any) -> Any:
    """The value with escapes for characters that UTF-8 cannot write, as in file names with bytes that are not text."""
    if isinstance(value, Mapping):
        return {key: _sendable(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_sendable(entry) for entry in value]
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _entry(path: Path, folder: Path) -> dict[str, str]:
    return {"name": path.stem, "file": path.relative_to(folder).as_posix()}


def basic(credentials: Sequence[tuple[str, str]]) -> Callable[..., Any]:
    """A dependency that asks for one of these (user, password) pairs by HTTP Basic. Without pairs it lets
    everybody in."""
    if not credentials:
        return lambda: None

    def check(given: HTTPBasicCredentials | None = Depends(HTTPBasic(auto_error=False))) -> None:
        pairs = [f"{user}:{password}".encode() for user, password in credentials]
        offered = f"{given.username}:{given.password}".encode() if given else b""
        if not sum(
            secrets.compare_digest(offered, pair) for pair in pairs
        ):  # compares with all of them, so that the time shows nothing
            raise HTTPException(401, [UNAUTHORISED], {"WWW-Authenticate": "Basic"})

    return check
