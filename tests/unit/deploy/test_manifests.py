"""What stands in deploy/ is valid, safe, and says the same as the programs it starts."""

from __future__ import annotations

import asyncio
import json
import re
import tomllib
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from shared_libs.cli.words import parsed
from shared_libs.durable import JobStore
from shared_libs.durable.database import ask
from shared_libs.factory import load_definition
from shared_libs.factory.durability import submission
from shared_libs.service.settings import load_settings
from tests.unit.durable.cast import submit

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy" / "kubernetes"
KEDA = json.loads((Path(__file__).parent / "keda.schema.json").read_text())
LISTED = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
MANIFESTS = {
    f"{one['kind']}/{one['metadata']['name']}": one
    for name in LISTED["resources"]
    for one in yaml.safe_load_all((FOLDER / name).read_text())
}


PODS = {name: one["spec"]["template"]["spec"] for name, one in MANIFESTS.items() if "template" in one.get("spec", {})}


@pytest.mark.promise("deploy-valid")
@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_every_manifest_holds_in_old_and_new_clusters_and_every_file_is_listed(version):
    for manifest in MANIFESTS.values():
        if "keda" in manifest["apiVersion"]:
            jsonschema.validate(manifest, KEDA[manifest["kind"]])
        else:
            kubernetes_validate.validate(manifest, version, strict=True)
    assert {path.name for path in FOLDER.glob("*.yaml")} == {"kustomization.yaml", *LISTED["resources"]}


@pytest.mark.promise("deploy-valid")
def test_the_checks_see_what_is_wrong():
    wrong = json.loads(json.dumps(MANIFESTS["PodDisruptionBudget/genai-factory-worker"]))
    wrong["spec"]["maxUnavailble"] = wrong["spec"].pop("maxUnavailable")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.30", strict=True)
    scaled = json.loads(json.dumps(MANIFESTS["ScaledObject/genai-factory-worker"]))
    scaled["spec"]["triggers"][0]["metadata"]["targetQueryVal"] = "5"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(scaled, KEDA["ScaledObject"])


@pytest.mark.promise("deploy-safe")
@pytest.mark.parametrize("name", PODS)
def test_pods_are_nobody_write_nowhere_and_hold_no_secret(name):
    pod = PODS[name]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"].keys() == {"memory"}  # a limit of CPU would make deadlines lie
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert all("value" not in variable for variable in container.get("env", ()))
    assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]


@pytest.mark.promise("deploy-safe")
def test_liveness_is_the_loop_and_never_the_database_and_a_rollout_loses_no_capacity():
    for kind in ("service", "worker"):
        deployment = MANIFESTS[f"Deployment/genai-factory-{kind}"]
        (container,) = PODS[f"Deployment/genai-factory-{kind}"]["containers"]
        assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
        assert container["startupProbe"]["httpGet"]["path"] == "/healthz"
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
        assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
        budget = MANIFESTS[f"PodDisruptionBudget/genai-factory-{kind}"]
        assert budget["spec"]["selector"] == deployment["spec"]["selector"]
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()


@pytest.mark.promise("deploy-valid")
def test_what_they_start_is_understood_and_has_the_time_to_drain():
    told = {name: parsed(pod["containers"][0]["args"]) for name, pod in PODS.items()}
    worker = told["Deployment/genai-factory-worker"]
    pod = PODS["Deployment/genai-factory-worker"]
    assert pod["terminationGracePeriodSeconds"] >= worker.grace + 10
    assert pod["containers"][0]["ports"][0]["containerPort"] == worker.health
    (trigger,) = MANIFESTS["ScaledObject/genai-factory-worker"]["spec"]["triggers"]
    assert int(trigger["metadata"]["targetQueryValue"]) == worker.concurrency
    assert told["Job/genai-factory-tables"].url is None
    serve = told["Deployment/genai-factory-service"]
    assert (serve.host, serve.port) == ("0.0.0.0", 8000)


@pytest.mark.promise("deploy-valid")
def test_the_definitions_hold_travel_without_secrets_and_the_service_has_keys(tmp_path, monkeypatch):
    for name in ("FACTORY_RUNS", "FACTORY_PEPPER", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "sqlite:///x.db" if name == "FACTORY_RUNS" else "geheim")
    for name, text in MANIFESTS["ConfigMap/genai-factory-agents"]["data"].items():
        (tmp_path / name).write_text(text)
    made, _ = submission(tmp_path / "assistant.yaml", "x")
    assert made.agent_limit == 200
    assert "geheim" not in json.dumps(load_definition(tmp_path / "assistant.yaml"))
    settings = load_settings(tmp_path)
    assert settings.keys == "sqlite:///x.db"
    (service,) = PODS["Deployment/genai-factory-service"]["containers"]
    assert service["args"][2] in {mount["mountPath"] for mount in service["volumeMounts"]}
    drains_s = PODS["Deployment/genai-factory-service"]["terminationGracePeriodSeconds"]
    assert drains_s >= settings.drain_s + 10


@pytest.mark.promise("deploy-valid")
def test_the_autoscaler_asks_for_one_number_of_what_runs_and_what_could(url):
    (trigger,) = MANIFESTS["ScaledObject/genai-factory-worker"]["spec"]["triggers"]

    async def main():
        async with JobStore(url) as store:
            counted = []
            for run_id, delay_s in (("a", 0.0), ("b", 0.0), ("later", 60.0)):
                await submit(store, run_id, delay_s=delay_s)
                rows = await store.database.one(ask(trigger["metadata"]["query"]))
                counted.append([tuple(row) for row in rows])
            return counted

    assert asyncio.run(main()) == [[(1,)], [(2,)], [(2,)]]


@pytest.mark.promise("deploy-safe")
def test_the_image_is_nobodys_starts_our_command_and_has_extras_that_there_are():
    text = (ROOT / "deploy" / "Containerfile").read_text()
    words = [line.split(maxsplit=1) for line in text.splitlines() if line and line[0].isupper()]
    last = dict(words)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last["USER"])
    assert json.loads(last["ENTRYPOINT"]) == ["factory"]
    assert parsed(json.loads(last["CMD"])).command == "serve"
    extras = re.search(r"/source\[([\w,]+)\]", text)[1].split(",")
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"service", "durable"} <= set(extras) <= set(known)
    assert "USER" in text[text.rindex("FROM") :]
    uid = int(last["USER"].partition(":")[0])
    assert all(pod["securityContext"]["runAsUser"] == uid for pod in PODS.values())
