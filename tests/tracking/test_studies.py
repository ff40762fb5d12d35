from pathlib import Path

from phototag.tracking.provenance import name_process
from phototag.tracking.runs import PROCESS_TAG, close_dead_runs
from phototag.tracking.store import Store
from phototag.tracking.studies import close_parent, open_parent


def test_a_resumed_study_is_not_marked_as_killed(store: Store, tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    dead = name_process().rpartition(":")[0] + ":1"
    parent = open_parent(store, "study-1", {})
    for status in ("RUNNING", "FINISHED"):
        store.client.set_tag(parent, PROCESS_TAG, dead)
        close_dead_runs(store)
        assert store.client.get_run(parent).info.status == "KILLED"
        assert open_parent(store, "study-1", {}) == parent
        close_dead_runs(store)  # as each trial does
        if status == "FINISHED":
            close_parent(store, parent, {}, tmp_path / "report", [])
        assert store.client.get_run(parent).info.status == status
