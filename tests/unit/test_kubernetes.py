"""The manifests: sound by Kubernetes' own schemas, and naming nothing that is not there. No cluster runs.

The schemas come with a package (kubernetes-validate), so none is fetched; kubeconform, which would fetch
them, is in no registry that Python's or Debian's tools ask.
"""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from freshvec import __version__, config
from tests.acceptance.reader import check_usage
from tests.support import REPOSITORY
from tests.unit.test_container import KNOWN, given

_WHY = "kubernetes-validate, which has the schemas, is not installed: `make test` has it"
jsonschema = pytest.importorskip("jsonschema", reason=_WHY)
schemas = pytest.importorskip("kubernetes_validate", reason=_WHY)

FOLDER = REPOSITORY / "packaging/kubernetes"
VARIANTS = ("base", "gpu", "autoscaling")
FILES = sorted(path for path in FOLDER.rglob("*.yaml") if path.name != "kustomization.yaml")
VERSIONS = ("1.31", "1.37")

TEXT = {"type": "string"}
# The part of KEDA's own schemas (keda.sh/v1alpha1, 2.x) that is used here; nothing beyond it is let through.
KEDA: dict[str, dict[str, Any]] = {
    "ScaledObject": {
        "type": "object",
        "additionalProperties": False,
        "required": ["scaleTargetRef", "triggers"],
        "properties": {
            "scaleTargetRef": {"type": "object", "required": ["name"]},
            "minReplicaCount": {"type": "integer", "minimum": 1},
            "maxReplicaCount": {"type": "integer", "minimum": 1},
            "pollingInterval": {"type": "integer"},
            "advanced": {"type": "object"},
            "triggers": {
                "type": "array",
                "items": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["type", "metadata"],
                    "properties": {
                        "type": {"const": "postgresql"},
                        "name": TEXT,
                        "metricType": {"enum": ["AverageValue", "Value"]},
                        "metadata": {
                            "type": "object",
                            "required": ["query", "targetQueryValue"],
                            "additionalProperties": TEXT,
                        },
                        "authenticationRef": {"type": "object", "required": ["name"]},
                    },
                },
            },
        },
    },
    "TriggerAuthentication": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "secretTargetRef": {
                "type": "array",
                "items": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["parameter", "name", "key"],
                    "properties": {"parameter": TEXT, "name": TEXT, "key": TEXT},
                },
            }
        },
    },
}


def objects(text: str) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(text) if each]


def of(file: str) -> dict[str, Any]:
    (only,) = objects((FOLDER / file).read_text(encoding="utf-8"))
    return only


def rendered(variant: str) -> dict[str, dict[str, Any]]:
    """What `kubectl apply --kustomize` would send, by its kind."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not on this machine, which puts the variants together")
    command = ["kubectl", "kustomize", str(FOLDER / variant)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {each["kind"]: each for each in objects(done.stdout)}


def check(each: dict[str, Any]) -> None:
    if each["kind"] in KEDA:
        assert each["apiVersion"] == "keda.sh/v1alpha1"
        jsonschema.validate(each["spec"], KEDA[each["kind"]])
        return
    for version in VERSIONS:
        schemas.validate(each, version, strict=True)


@pytest.mark.parametrize("file", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_each_file_is_sound(file: Path) -> None:
    for each in objects(file.read_text(encoding="utf-8")):
        if file.name == "worker.yaml":  # a part of one, which is put over the whole
            assert each["kind"] == "Deployment"
            continue
        check(each)


def test_the_check_sees_a_fault() -> None:
    wrong = of("base/deployment.yaml")
    wrong["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(Exception, match="livenesProbe"):
        check(wrong)
    scaled, _ = objects((FOLDER / "autoscaling/scaledobject.yaml").read_text())
    scaled["spec"]["maxReplicas"] = 3
    with pytest.raises(jsonschema.ValidationError, match="maxReplicas"):
        check(scaled)


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_is_sound_as_a_whole(variant: str) -> None:
    whole = rendered(variant)
    for each in whole.values():
        check(each)
    pod = whole["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"].startswith(f"registry.example.com/freshvec:{__version__}")
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["configuration"]["configMap"]["name"] == whole["ConfigMap"]["metadata"]["name"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == volumes.keys(), "each is there, and each is needed"
    environment = [variable["name"] for variable in container["env"]]
    assert len(environment) == len(set(environment))
    assert ("replicas" in whole["Deployment"]["spec"]) == (variant != "autoscaling"), "KEDA says how many"


def test_the_gpu_variant_asks_for_one_gpu_and_runs_on_nothing_else() -> None:
    (container,) = rendered("gpu")["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"name": "FRESHVEC_DAEMON_DEVICE", "value": "cuda"} in container["env"]
    given_models = [each["value"] for each in container["env"] if each["name"].endswith("MODELS_DIR")]
    assert given_models == [
        mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "models"
    ]


def worker() -> tuple[dict[str, Any], dict[str, Any]]:
    pod = of("base/deployment.yaml")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return pod, container


def test_it_runs_as_the_image_s_user_and_writes_to_its_volumes_alone() -> None:
    pod, container = worker()
    (made,) = (words for words in given("RUN") if "useradd" in words)
    assert f"--uid {pod['securityContext']['runAsUser']} " in made
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False, "FRESHVEC_WEB_PORT=tcp://… is no setting"
    for each in (container, *pod["initContainers"]):
        confined = each["securityContext"]
        assert confined["readOnlyRootFilesystem"] is True
        assert confined["allowPrivilegeEscalation"] is False
        assert confined["capabilities"] == {"drop": ["ALL"]}
        assert {"requests", "limits"} == each["resources"].keys()
    writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/tmp", *given("VOLUME")}
    assert pod["terminationGracePeriodSeconds"] > config.Daemon().shutdown_seconds


def test_its_commands_and_settings_are_the_program_s(monkeypatch: pytest.MonkeyPatch) -> None:
    pod, container = worker()
    for each in (container, *pod["initContainers"]):
        check_usage(each["args"])
    secret = of("base/secret.example.yaml")
    for variable in container["env"]:
        assert variable["name"] in KNOWN
        reference = variable.get("valueFrom", {}).get("secretKeyRef")
        if reference is not None:
            assert reference["name"] == secret["metadata"]["name"]
            assert reference["key"] in secret["stringData"]
        monkeypatch.setenv(variable["name"], variable.get("value", "postgresql://somewhere/shop"))
    settings = config.load(FOLDER / "base/freshvec.toml")
    assert settings.daemon.share, "or all but one would stand by"
    assert {pod["initContainers"][0]["args"][1]} == {sync.model for sync in settings.sync}
    (port,) = container["ports"]
    assert settings.web.address == f"0.0.0.0:{port['containerPort']}"
    for name, path in (("startup", "/healthz"), ("liveness", "/healthz"), ("readiness", "/readyz")):
        assert container[f"{name}Probe"]["httpGet"] == {"path": path, "port": port["name"]}


def test_what_chooses_pods_chooses_these() -> None:
    deployment, disruption = of("base/deployment.yaml")["spec"], of("base/disruption.yaml")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"].items() <= labels.items()
    assert disruption["selector"]["matchLabels"].items() <= labels.items()
    scaled, authentication = objects((FOLDER / "autoscaling/scaledobject.yaml").read_text())
    assert scaled["spec"]["scaleTargetRef"] == {"name": of("base/deployment.yaml")["metadata"]["name"]}
    for trigger in scaled["spec"]["triggers"]:
        assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]
    (reference,) = authentication["spec"]["secretTargetRef"]
    assert reference["key"] in of("base/secret.example.yaml")["stringData"]


def test_its_documents_name_what_is_there() -> None:
    page = (REPOSITORY / "docs/fleet.md").read_text(encoding="utf-8")
    named = re.findall(r"packaging/kubernetes/(\w+)", page)
    assert set(named) == set(VARIANTS)
