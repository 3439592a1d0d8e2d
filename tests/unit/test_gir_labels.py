"""Labels that several workers set at the same time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from muxer.errors import NotFound, ServiceUnavailable
from muxer.gir.deviations import DeviationLog
from muxer.gir.labels import DOCUMENTED_PATH, LabelClient

WORKERS = 2


class UndefinedLabel(LabelClient):
    """A client of an RWS without the definition of the label, which refuses the first labels of all workers at once."""

    def __init__(self) -> None:
        super().__init__("api/v2/ops/contact-centers/cc", DeviationLog(), 100)
        self.refused = threading.Barrier(WORKERS)
        self.one_has_ended = threading.Event()
        self.is_defined = False
        self.labelled: list[str] = []
        self.definitions = 0

    def _send_json(self, method: str, path: str, body: Any = None) -> object:
        if path.endswith("/recording-label-definitions"):
            # A worker that gives up ends here; one that waits for this definition does not.
            self.one_has_ended.wait(0.5)
            self.definitions += 1
            self.is_defined = True
        elif self.is_defined:
            self.labelled.append(path.split("/")[-2])
        else:
            self.refused.wait(30)
            raise NotFound("the label is not defined")
        return {}

    def label_recording(self, recording_id: str) -> bool:
        try:
            return self.add_label(recording_id)
        finally:
            self.one_has_ended.set()


def test_workers_refused_at_the_same_time_are_all_labelled() -> None:
    rws = UndefinedLabel()
    with ThreadPoolExecutor(WORKERS) as workers:
        assert list(workers.map(rws.label_recording, ("r1", "r2"))) == [True, True]
    assert sorted(rws.labelled) == ["r1", "r2"] and rws.definitions == 1
    assert rws.wants_label("r3") and not rws.deviations.first_texts


class RefusingOps(LabelClient):
    """A client of an RWS that refuses the path with `ops`, and is unavailable for the first label at the documented one."""

    def __init__(self) -> None:
        super().__init__("api/v2/ops/contact-centers/cc", DeviationLog(), 100)
        self.refuses_ops, self.documented = True, 0

    def _send_json(self, method: str, path: str, body: Any = None) -> object:
        if not path.startswith(f"{DOCUMENTED_PATH}/recordings"):
            if self.refuses_ops:
                raise NotFound("refused")
            return {}
        self.documented += 1
        raise ServiceUnavailable("down") if self.documented == 1 else NotFound("no such path")


def test_an_outage_does_not_decide_which_path_labels_use() -> None:
    rws = RefusingOps()
    with pytest.raises(ServiceUnavailable):
        rws.add_label("r1")
    rws.refuses_ops = False
    assert rws.add_label("r1") and rws.documented == 1
