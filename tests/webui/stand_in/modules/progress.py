from __future__ import annotations

pending_tasks: dict[str, float] = {}
