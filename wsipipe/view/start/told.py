"""What the page is told of a run, as JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from wsipipe.artifacts.system import shell_line
from wsipipe.view.start.desk import Desk, Run


def told(desk: Desk, run: Run) -> dict[str, Any]:
    """Return what the page shows of a run."""
    outcomes = run.outcomes()
    slides: list[Mapping[str, Any]] = [
        {
            key: slide.get(key)
            for key in ("name", "status", "reason", "cells", "tissue_mm2", "cells_per_mm2", "warnings")
        }
        for slide in outcomes
    ]
    done = sum(slide["cells"] is not None for slide in slides)
    failed = any(slide["status"] == "failed" for slide in slides)
    left = max(0, len(run.slides) - done)
    state = run.state or ("failed" if failed else "done" if slides and not left else "stopped")
    return {
        "name": run.name,
        "folder": str(run.folder),
        "state": state,
        "asked": len(run.slides),
        "model": run.model,
        "began": run.began,
        "seconds": round((run.ended or time.time()) - run.began) if run.state else None,
        "stages": [{"stage": stage, "done": d, "total": n} for stage, (d, n) in run.stages.items()],
        "lines": list(run.lines)[-40:],
        "slides": slides,
        "look": len(desk.masters(run)),
        "report": (run.folder / "report.html").is_file(),
        "scores": [{"marker": marker, "name": page.stem} for marker, page in desk.scores(run)],
        "command": shell_line(["wsipipe", *run.segment()]),
    }


def as_json(content: Any) -> bytes:
    """Return strict JSON for a browser."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False, default=str).encode("utf-8", "replace")
