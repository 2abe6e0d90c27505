"""One run in a process of its own: ``python -m lasem.experiments.worker``, started by ``lasem.experiments.workers``.

Reads one line of JSON from stdin, and tells how it goes in lines of JSON on stdout. When stdin closes, whoever started
it has ended, and so does it: nothing finished is lost, and nothing goes on unseen.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from lasem.errors import LasemError
from lasem.experiments.config import ExperimentConfig
from lasem.experiments.observer import Teller
from lasem.experiments.runner import run

FAILED, ORPHANED = 1, 143


def main() -> int:
    """Do what stdin says; 0 if the run has come to its end."""
    job = json.loads(sys.stdin.readline())
    if "gpu" in job:  # of several: the others are not there for it
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[job["gpu"]] if visible else str(job["gpu"])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    out, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no message
    try:
        run(
            ExperimentConfig.from_yaml(job["config"]),
            Path(job["directory"]),
            observer=Teller(partial(_tell, out)),
            resume=job["resume"],
            command=job["command"],
        )
    except LasemError as error:
        _tell(out, error=str(error))
        return FAILED
    except Exception as error:
        traceback.print_exc()
        _tell(out, error=f"unexpected {type(error).__name__}: {error}")
        return FAILED
    return 0


def _tell(out: TextIO, **message: Any) -> None:
    print(json.dumps(message), file=out, flush=True)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(ORPHANED)


if __name__ == "__main__":
    sys.exit(main())
