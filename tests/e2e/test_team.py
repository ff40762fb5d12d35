"""A team's MLflow server on PostgreSQL and its DVC remotes."""

import asyncio
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import optuna
import pytest
from mlflow.tracking import MlflowClient
from PIL import Image

from phototag.base.files import file_digest, write_json
from phototag.dataset.manifest import read_kept
from phototag.review.session import append_answer
from phototag.search.storage import list_trials
from phototag.verification.corrections import Answer, read_answers
from tests.projects import ROOT, Project, make_project
from tests.search.files import write_search
from tests.servers import WITHOUT_JOBS, free_port, run_server

pytestmark = pytest.mark.slow


def find_postgres() -> Path | None:
    """Return the folder of Debian's newest PostgreSQL, whose programs are not on the PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return folders[-1].parent if folders else None


@pytest.fixture
def database() -> Iterator[str]:
    """Address of an empty PostgreSQL database."""
    programs = find_postgres()
    if programs is None:
        pytest.skip("there is no PostgreSQL: apt-get install postgresql")
    # PostgreSQL does not run as root, and its user must have access to the folder.
    user = "postgres" if os.getuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="phototag-"))
    if user:
        shutil.chown(folder, user)
    port = free_port()

    def run(program: str, *arguments: str) -> None:
        command = [str(programs / program), *arguments]
        subprocess.run(command, check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL)

    data = str(folder / "data")
    try:
        run("initdb", "--auth=trust", "--username=phototag", "-D", data)
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
        run("pg_ctl", "-D", data, "-o", options, "-l", str(folder / "log"), "-w", "start")
        run("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "phototag", "phototag")
        yield f"postgresql://phototag@127.0.0.1:{port}/phototag"
        run("pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def server(database: str, tmp_path: Path, port: int) -> Iterator[str]:
    """Address of an MLflow server that uses the database and stores the artifacts."""
    # With several workers, uvicorn restarts each one that does not answer within 5 s, which on a
    # busy machine is shorter than its imports take.
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    command += ["--backend-store-uri", database, "--artifacts-destination", str(tmp_path / "kept")]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")}
    environment |= WITHOUT_JOBS
    with run_server(command, f"http://127.0.0.1:{port}/health", tmp_path, environment):
        yield f"http://127.0.0.1:{port}"


@pytest.mark.soak
def test_runs_of_four_queue_workers_are_complete(
    server: str, tmp_path: Path, results: Project
) -> None:
    project = results.clone(tmp_path / "project", cache=True)
    project.environment["MLFLOW_TRACKING_URI"] = server
    project("dvc", "repro", "--force", "register")
    names = [f"lr-{number}" for number in range(1, 5)]
    for number, name in enumerate(names, start=1):
        changes = ["-S", f"lr=0.000{number}", "-S", "registry.experiments=true"]
        project("dvc", "exp", "run", "--queue", "-n", name, *changes)
    project("dvc", "exp", "run", "--run-all", "--jobs", "4")

    assert not (project.folder / "mlflow.db").exists()
    client = MlflowClient(server, registry_uri=server)
    experiment = client.get_experiment_by_name("project")
    assert experiment
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(names) < set(runs)
    assert len(runs) == 5
    for name, run in runs.items():
        assert run.info.status == "FINISHED", name
        assert {"val_loss", "best_val_loss", "test_f1_micro"} <= set(run.data.metrics)
        paths = {artifact.path for artifact in client.list_artifacts(run.info.run_id, "evaluate")}
        assert {"evaluate/report.html", "evaluate/figures"} <= paths
    versions = client.search_model_versions("name = 'project'")
    assert {version.run_id for version in versions} == {run.info.run_id for run in runs.values()}
    assert client.get_model_version_by_alias("project", "champion")
    assert list((tmp_path / "kept").rglob("report.html"))


@pytest.mark.soak
def test_four_workers_of_two_clones_share_a_study(
    database: str, tmp_path: Path, results: Project
) -> None:
    """Optuna's storage on PostgreSQL; each clone has its own MLflow store and DVC experiments."""
    clones = [results.clone(tmp_path / name, cache=True) for name in ("mine", "yours")]
    settings = {"model.conv": [{"out": 4, "kernel": 5, "stride": 4, "pool": 4}], "model.linear": []}
    space = {"lr": {"low": 0.0005, "high": 0.05, "log": True}}
    started = []
    for clone in clones:
        clone.environment["PHOTOTAG_STUDIES"] = database
        write_search(clone.folder / "search.yaml", trials=12, settings=settings, space=space)
        started.append(clone.start("phototag", "tune", "small", "-j", "2"))
    assert [process.wait() for process in started] == [0, 0]

    storage = optuna.storages.RDBStorage(database)
    (name,) = optuna.get_all_study_names(storage)
    trials = list_trials(optuna.load_study(study_name=name, storage=storage))
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 12
    assert len({trial.user_attrs["settings"]["lr"] for trial in trials}) == 12
    assert len({trial.user_attrs["process"] for trial in trials}) == 4
    # Each trial is an experiment of the clone that made it, and of no other.
    listed = [set(clone("dvc", "exp", "list", "--name-only").split()) for clone in clones]
    made = [{each for each in names if "-t" in each} for names in listed]
    assert made[0].isdisjoint(made[1])
    assert made[0] | made[1] == {f"{name}-t{trial.number}-s0" for trial in trials}
    assert min(map(len, made)) > 0
    # Whoever ended last evaluated the winner.
    assert any((clone.folder / "reports/tune/small/report.html").exists() for clone in clones)
    assert not any((clone.folder / "studies.db").exists() for clone in clones)


class SSHServer:
    """An SSH server with SFTP on this machine, in a thread."""

    def __init__(self, folder: Path) -> None:
        self.key = folder / "key"
        asyncssh.generate_private_key("ssh-ed25519").write_private_key(self.key)
        asyncssh.read_private_key(self.key).write_public_key(folder / "authorized")
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        starting = asyncio.run_coroutine_threadsafe(self._listen(folder), self.loop)
        self.listener = starting.result(timeout=60)
        self.port = self.listener.get_port()

    async def _listen(self, folder: Path) -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[str(self.key)],
            authorized_client_keys=str(folder / "authorized"),
            sftp_factory=True,
            allow_scp=False,
        )

    def close(self) -> None:
        """Stop the server."""
        self.loop.call_soon_threadsafe(self.listener.close)
        self.loop.call_soon_threadsafe(self.loop.stop)


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[SSHServer]:
    server = SSHServer(tmp_path)
    yield server
    server.close()


@pytest.mark.parametrize("kind", ["folder", pytest.param("ssh", marks=pytest.mark.soak)])
def test_results_are_pulled_from_a_remote(
    kind: str, tmp_path: Path, ssh: SSHServer, results: Project
) -> None:
    place = tmp_path / "remote"
    place.mkdir()
    project = results.clone(tmp_path / "project", cache=True)
    if kind == "folder":
        project("dvc", "remote", "add", "-d", "team", str(place))
    else:
        project("dvc", "remote", "add", "-d", "team", f"ssh://team@127.0.0.1:{ssh.port}{place}")
        project("dvc", "remote", "modify", "team", "keyfile", str(ssh.key))
    project.commit("remote")
    project("dvc", "push")
    assert list(place.rglob("files/md5/*/*"))

    mate = project.clone(tmp_path / "mate")
    mate("dvc", "pull", "models/model.safetensors", "reports/evaluate/report.html")
    for name in ("models/model.safetensors", "reports/evaluate/report.html"):
        assert file_digest(mate.folder / name) == file_digest(project.folder / name)
    # After pulling everything, no stage runs.
    mate("dvc", "pull")
    assert "Running stage" not in mate("dvc", "repro")


def read_blocks(section: str) -> list[list[str]]:
    """Return the commands of each block in a section of docs/team.md."""
    text = (ROOT / "docs/team.md").read_text().partition(f"## {section}\n")[2].partition("\n## ")[0]
    return [
        [line.partition("  #")[0].strip() for line in block.splitlines()]
        for block in re.findall(r"(?s)```bash\n(.*?)```", text)
    ]


def test_colleague_serves_the_model_as_the_docs_say(tmp_path: Path, results: Project) -> None:
    """The commands in docs/team.md are run as printed, with local paths and no `make setup`."""
    own, upload, theirs = read_blocks("A DVC remote")
    origin = tmp_path / "origin.git"
    project = results.clone(tmp_path / "project", cache=True)
    project("git", "init", "-q", "--bare", "-b", "main", str(origin))
    project("git", "remote", "set-url", "origin", str(origin))
    assert "ssh://" in own.pop(1)
    for command in [*own, *upload]:
        project(*shlex.split(command.replace("/mnt/share/phototag", str(tmp_path / "share"))))
    assert not project("git", "status", "--porcelain")

    clone, *commands = theirs
    assert clone.startswith("git clone <the repository> phototag && cd phototag && make setup")
    project("git", "clone", "-q", str(origin), str(tmp_path / "phototag"))
    mate = Project(tmp_path / "phototag")
    missing = mate("phototag", "sync")
    assert missing.endswith("is not registered: data/images.npy is missing: run `dvc pull`\n")
    serve = commands.pop()
    assert commands.pop() == "export MLFLOW_TRACKING_URI=sqlite:///$PWD/mlflow.db"
    printed = {command: mate(*shlex.split(command)) for command in commands}
    assert "Running stage" not in printed["dvc repro"]
    assert (
        "Registered: phototag version 1, champion (there was no champion)"
        in (printed["phototag sync"])
    )
    assert "the champion is version 1" in printed["phototag history"]
    assert mate("phototag", "sync") == "MLflow runs created: 0\n"
    assert not mate("git", "status", "--porcelain")
    assert json.loads(mate("dvc", "status", "--json")) == {}

    # The served address has the weights of the commit, and its run has the time of the commit.
    uri = f"sqlite:///{mate.folder}/mlflow.db"
    client = MlflowClient(uri, registry_uri=uri)
    address = shlex.split(serve)[4]
    assert address == "models:/phototag@champion"
    version = client.get_model_version_by_alias("phototag", "champion")
    weights = list((mate.folder / "mlartifacts").rglob("artifacts/model.safetensors"))
    assert [file_digest(path) for path in weights] == [
        file_digest(project.folder / "models/model.safetensors")
    ]
    run = client.get_run(version.run_id)
    assert run.info.run_name.endswith(f"commit {run.data.tags['phototag.revision'][:7]}")
    seconds = mate("git", "show", "-s", "--format=%ct", run.data.tags["phototag.revision"])
    assert run.info.start_time == run.info.end_time == 1000 * int(seconds)
    model = client.get_logged_model(version.source.rpartition("/")[2])
    linked = {metric.key for metric in model.metrics if metric.dataset_name == "test"}
    assert "test_f1_micro" in linked

    # A changed model does not belong to dvc.lock, and is not registered.
    (mate.folder / "reports/evaluate/thresholds.json").unlink()
    (mate.folder / "reports/evaluate/thresholds.json").write_text("{}")
    assert "thresholds.json differs from dvc.lock: run `dvc repro`" in mate("phototag", "sync")


def test_photos_of_two_people_are_merged_as_the_docs_say(tmp_path: Path) -> None:
    (tmp_path / "remote").mkdir()
    for folder, numbers in (("first", range(4)), ("ann", range(4, 7)), ("bob", range(6, 9))):
        for number in numbers:  # ann and bob have one photo in common
            path = tmp_path / folder / ("cat", "dog")[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40), (25 * number, 0, 0)).save(path)
    ann = make_project(tmp_path / "project")
    ann("dvc", "remote", "add", "-d", "team", str(tmp_path / "remote"))
    ann("git", "clone", "-q", "--bare", ".", str(tmp_path / "origin.git"))
    ann("git", "remote", "add", "origin", str(tmp_path / "origin.git"))

    def add(project: Project, name: str, *options: str) -> None:
        project("phototag", "import", str(tmp_path / name), *options)
        project("dvc", "add", "-q", "data/raw")
        (project.folder / "dvc.lock").write_text(f"schema: '2.0'\nstages: {{}}  # {name}\n")
        write_json(project.folder / "reports/train/metrics.json", {name: 1})
        project.commit(name)

    add(ann, "first")
    ann("git", "push", "-q", "-u", "origin", "main")
    ann("dvc", "push", "-q", "data/raw.dvc")
    ann("git", "clone", "-q", str(tmp_path / "origin.git"), str(tmp_path / "mate"))
    bob = Project(tmp_path / "mate")
    bob("dvc", "pull", "-q", "data/raw.dvc")
    add(ann, "ann", "--add")
    ann("git", "push", "-q")
    ann("dvc", "push", "-q", "data/raw.dvc")
    add(bob, "bob", "--add")

    (commands,) = read_blocks("Photos added by two people")
    pull, *commands = (
        command.replace("~/new-photos", str(tmp_path / "bob")) for command in commands
    )
    with pytest.raises(AssertionError, match=r"conflict in data/raw\.dvc"):
        bob(*shlex.split(pull))
    assert commands.pop() == "dvc repro"
    printed = {command: bob(*shlex.split(command)) for command in commands}
    assert "2 new, 1 already known" in printed[f"phototag import {tmp_path / 'bob'} --add"]
    assert bob("git", "status", "--porcelain") == ""
    names = sorted(path.name for path in (bob.folder / "data/raw").iterdir())
    assert names == ["001-first.zip", "002-ann.zip", "003-bob.zip"]
    bob("git", "push", "-q")
    bob("dvc", "push", "-q", "data/raw.dvc")
    ann("git", "pull", "-q")
    ann("dvc", "pull", "-q", "data/raw.dvc")
    for name in names:
        assert file_digest(ann.folder / "data/raw" / name) == file_digest(
            bob.folder / "data/raw" / name
        )


def test_answers_of_two_reviewers_are_merged_by_git(tmp_path: Path, results: Project) -> None:
    project = results.clone(tmp_path / "project", cache=True)
    mate = project.clone(tmp_path / "mate", cache=True)
    path, images = "data/corrections.csv", file_digest(project.folder / "data/images.npy")
    before = read_kept(project.folder / "data/manifest.csv")
    for row, (one, who) in enumerate(((project, "ann"), (mate, "bob"))):
        file, sha256 = before["file"][row], before["sha256"][row]
        words = ("yes", "no") if before["people"][row] == 0 else ("no", "yes")
        answer = Answer(file, sha256, "people", *words, who, f"2025-01-0{2 - row}", "errors")
        append_answer(one.folder / path, answer)
        one.commit(who)
    project("git", "pull", "-q", "--no-rebase", "--no-edit", str(mate.folder), "main")
    assert {answer.who for answer in read_answers(project.folder / path).values()} == {"ann", "bob"}
    assert "people" in project("phototag", "label")
    project("phototag", "label", "rename", "people", "folk")
    ran = project("dvc", "repro", "resize")
    assert "Running stage 'resize'" in ran
    after = read_kept(project.folder / "data/manifest.csv")
    assert after["folk"].tolist() == [*(1 - before["people"][:2]), *before["people"][2:]]
    assert after["reason"].str.startswith("corrected: folk").sum() == 2
    assert file_digest(project.folder / "data/images.npy") == images
    assert "embed" not in json.loads(project("dvc", "status", "--json"))  # no features are computed
