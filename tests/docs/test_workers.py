"""The page of Django and Celery in the processes it is about: a worker that forks, and a server of Django's."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from urllib.request import urlopen

import pytest

from shared_libs.testing import BackgroundFaultServer
from tests.docs.given import said
from tests.docs.reading import ROOT, blocks

PATIENCE_S = 60

WORKER = """
from tasks import celery
celery.conf.update(
    broker_url="filesystem://",
    broker_transport_options={
        "data_folder_in": "queue", "data_folder_out": "queue", "control_folder": "control", "polling_interval": 0.05
    },
    result_backend="file://" + __file__.rpartition("/")[0] + "/results",
)
"""

SITE = """
import django
from django.conf import settings
settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF="site_of_django", SECRET_KEY="k")
django.setup()
from django.core.asgi import get_asgi_application
from django.urls import path
from views import ask, stream
urlpatterns = [path("ask", ask), path("stream", stream)]
application = get_asgi_application()
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with the page's files, and what starts a program in it whose models answer as on the pages."""
    for block in blocks(ROOT / "docs" / "guides" / "django.md"):
        if block.file:
            (tmp_path / block.file).write_text(block.code)
    for name in ("queue", "results", "control"):
        (tmp_path / name).mkdir()
    (tmp_path / "worker.py").write_text(WORKER)
    (tmp_path / "site_of_django.py").write_text(SITE)
    return tmp_path


@contextmanager
def program(folder, *arguments):
    with BackgroundFaultServer({"*": said}) as server:
        environment = {
            **os.environ,
            "OPENAI_API_KEY": "k",
            "OPENAI_BASE_URL": server.url("openai"),
            "PYTHONPATH": f"{folder}:{ROOT}",
        }
        command = [sys.executable, "-m", *arguments]
        with subprocess.Popen(
            command, cwd=folder, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        ) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()


@pytest.mark.promise("docs-run")
def test_a_worker_of_celery_that_forks_answers_task_after_task_and_ends_cleanly(folder):
    celery = pytest.importorskip("celery", reason="pip install 'genai-factory[docs]'")
    app = celery.Celery("client", broker="filesystem://", backend=f"file://{folder}/results", set_as_current=False)
    folders = {"data_folder_in": f"{folder}/queue", "data_folder_out": f"{folder}/queue"}
    app.conf.broker_transport_options = {**folders, "control_folder": f"{folder}/control"}
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING")
    with program(folder, "celery", "-A", "worker", "worker", "--pool", "prefork", "-c", "1", *quiet) as worker:
        for run_id in ("order-7", "order-8"):
            asked = app.send_task("tasks.answer", args=("Where is order 7?", run_id))
            answer = asked.get(timeout=PATIENCE_S, interval=0.05)
            assert (answer["status"], answer["run_id"]) == ("answered", run_id)
        worker.send_signal(signal.SIGTERM)
        _, err = worker.communicate(timeout=PATIENCE_S)
    assert worker.returncode == 0, err
    assert "Traceback" not in err, err
    app.close()


@pytest.mark.promise("docs-run")
def test_a_server_of_django_answers_and_streams(folder):
    pytest.importorskip("django", reason="pip install 'genai-factory[docs]'")
    with program(folder, "uvicorn", "site_of_django:application", "--port", "0", "--lifespan", "off") as server:
        running = next(line for line in server.stderr if "running on" in line)
        address = re.search(r"http://[\d.:]+", running)[0]
        with urlopen(f"{address}/ask?question=Do+we+have+apples%3F", timeout=PATIENCE_S) as answer:
            assert json.load(answer)["answer"] == "We have 3 apples."
        with urlopen(f"{address}/stream?question=Do+we+have+apples%3F", timeout=PATIENCE_S) as answer:
            assert answer.read() == b"We have 3 apples."
        server.send_signal(signal.SIGTERM)
        _, err = server.communicate(timeout=PATIENCE_S)
    assert "Traceback" not in err, err
