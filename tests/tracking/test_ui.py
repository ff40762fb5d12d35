"""MLflow's pages in Chromium, for the store of a real pipeline with two experiments."""

import json
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from playwright.sync_api import Browser, Page, expect

from tests.projects import Project
from tests.servers import free_port, run_server

pytestmark = pytest.mark.slow
PATIENCE = 180_000  # milliseconds; the first page of the server is slow


class Served:
    """MLflow server started by `phototag ui`, with the runs by name and the newest version."""

    def __init__(self, base: str, view: str, folder: Path) -> None:
        self.base, self.view = base, view
        client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
        self.runs = {run.info.run_name: run for run in client.search_runs(["1"])}
        versions = client.search_model_versions(f"name = '{folder.name}'")
        self.name = folder.name
        self.newest = max(int(version.version) for version in versions)
        self.model_id = versions[0].source.rpartition("/")[2]


@pytest.fixture(scope="module")
def served(
    trained: Project, experiments: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    port = free_port()
    command = ["phototag", "ui", "--port", str(port)]
    health = f"http://127.0.0.1:{port}/health"
    place = tmp_path_factory.mktemp("ui") / "log"
    with run_server(command, health, trained.folder, trained.environment, place) as log:
        view = log.read_text().partition("open ")[2].split()[0]
        yield Served(f"http://127.0.0.1:{port}", view, trained.folder)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    opened = browser.new_page(viewport={"width": 1400, "height": 800})
    opened.set_default_timeout(PATIENCE)
    yield opened
    opened.close()


def test_table_of_runs_shows_lr_loss_f1_and_the_inputs(served: Served, page: Page) -> None:
    page.set_viewport_size({"width": 2200, "height": 800})  # columns beyond it have no elements
    page.goto(served.view)
    for name in served.runs:
        # Repeated trainings have the same name.
        expect(page.get_by_text(name, exact=True).first).to_be_visible(timeout=PATIENCE)
    for column in ("best_val_loss", "test_f1_micro", "test_f1_macro", "lr"):
        expect(page.get_by_text(column, exact=True).first).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_text("1e-05", exact=True).first).to_be_visible()
    for value in ("synthetic images", "48 train, 6 val, 6 test", "report, changed"):
        expect(page.get_by_text(value, exact=True).first).to_be_visible(timeout=PATIENCE)


def test_run_page_shows_curves(served: Served, page: Page) -> None:
    run_id = served.runs["slow-lr"].info.run_id
    page.goto(f"{served.base}/#/experiments/1/runs/{run_id}/model-metrics")
    for metric in ("val_loss", "f1_micro"):
        page.get_by_placeholder("Search metric charts").fill(f"^{metric}$")
        expect(page.get_by_text(f"slow-lr ({metric})").first).to_be_visible(timeout=PATIENCE)


def test_comparison_page_shows_both_experiments(served: Served, page: Page) -> None:
    chosen = [served.runs[name].info.run_id for name in ("slow-lr", "pooled")]
    runs, experiments = (urllib.parse.quote(json.dumps(ids)) for ids in (chosen, ["1"]))
    page.goto(f"{served.base}/#/compare-runs?runs={runs}&experiments={experiments}")
    expect(page.get_by_text("Comparing 2 Runs")).to_be_visible(timeout=PATIENCE)
    for name in ("slow-lr", "pooled"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_text("evaluate.prior_strength", exact=True).first).to_be_visible(
        timeout=PATIENCE
    )


def test_model_page_shows_aliases(served: Served, page: Page) -> None:
    page.goto(f"{served.base}/#/models/{served.name}")
    for alias in ("champion", "challenger"):
        expect(page.get_by_text(alias).first).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_text(f"Version {served.newest}", exact=True)).to_be_visible()


def test_page_of_a_model_shows_its_scores_and_the_dataset(served: Served, page: Page) -> None:
    page.goto(f"{served.base}/#/experiments/1/models/{served.model_id}")
    expect(page.get_by_text("test_f1_micro", exact=True).first).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_text("test (#", exact=False).first).to_be_visible(timeout=PATIENCE)
