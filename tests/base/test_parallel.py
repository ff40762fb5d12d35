from functools import partial

import pytest

from phototag.base import parallel
from phototag.base.errors import InputError
from phototag.base.parallel import Backend, run_in_order


def double(number: int, offset: int = 0) -> int:
    return 2 * number + offset


@pytest.mark.parametrize("backend", ["sequential", "threading", "loky"])
def test_results_have_the_order_of_the_tasks(backend: Backend) -> None:
    found = run_in_order(partial(double, offset=1), range(300), backend, n_jobs=2)
    assert list(found) == [2 * number + 1 for number in range(300)]
    assert list(run_in_order(double, [], backend)) == []


def test_sequential_backend_runs_a_task_only_when_its_result_is_requested() -> None:
    """The caller then has all results that were computed before a kill."""
    done: list[int] = []
    results = run_in_order(done.append, range(10), "sequential")
    next(results)
    next(results)
    assert done == [0, 1]


@pytest.mark.parametrize(
    ("backend", "sentence"),
    [
        ("dask", "requires package distributed: run `make setup-dask`"),
        ("ray", "requires package ray: run `make setup-ray`"),
    ],
)
def test_missing_package_of_a_backend_is_reported(
    monkeypatch: pytest.MonkeyPatch, backend: Backend, sentence: str
) -> None:
    monkeypatch.setattr(parallel, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=sentence):
        next(run_in_order(double, range(3), backend))


def test_scheduler_that_does_not_answer_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed")

    def refuse() -> None:
        raise OSError("timed out")

    monkeypatch.setattr(distributed, "Client", refuse)
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tcp://127.0.0.1:9")
    with pytest.raises(InputError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        next(run_in_order(double, range(3), "dask"))
