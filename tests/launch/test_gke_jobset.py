"""If a test here fails, JobSet or Kubernetes would refuse launch/gke_jobset.yaml, or its numbers do not agree."""

import math
from typing import Any

import yaml
from jobs.conftest import ROOT

# jobset.x-k8s.io/v1alpha2 (JobSet's API reference), batch/v1 and v1: the fields without which an object is refused.
REQUIRED = {
    "": ("apiVersion", "kind", "metadata", "spec"),
    "metadata": ("name",),
    "spec": ("replicatedJobs",),
    "spec.failurePolicy.rules[]": ("name", "action"),
    "spec.replicatedJobs[]": ("name", "template"),
    "spec.replicatedJobs[].template": ("spec",),
    "spec.replicatedJobs[].template.spec": ("template",),
    "spec.replicatedJobs[].template.spec.podFailurePolicy.rules[]": ("action",),
    "spec.replicatedJobs[].template.spec.podFailurePolicy.rules[].onExitCodes": ("operator", "values"),
    "spec.replicatedJobs[].template.spec.template": ("spec",),
    "spec.replicatedJobs[].template.spec.template.spec": ("containers", "restartPolicy"),  # Always is refused
    "spec.replicatedJobs[].template.spec.template.spec.containers[]": ("name", "image"),
    "spec.replicatedJobs[].template.spec.template.spec.containers[].ports[]": ("containerPort",),
}


def at(value: Any, path: str) -> list[Any]:
    """All that stand at a path; [] goes through a list."""
    found = [value]
    for part in filter(None, path.split(".")):
        found = [one[part.removesuffix("[]")] for one in found]
        found = [item for one in found for item in one] if part.endswith("[]") else found
    return found


def test_jobset() -> None:
    jobset = yaml.safe_load((ROOT / "launch" / "gke_jobset.yaml").read_text())
    for path, fields in REQUIRED.items():
        objects = at(jobset, path)
        assert objects, path
        for one in objects:
            assert set(fields) <= set(one), path
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (rule,) = jobset["spec"]["failurePolicy"]["rules"]
    assert rule["action"] in ("FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts")
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]

    (job,) = at(jobset, "spec.replicatedJobs[].template.spec")
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["restartPolicy"] in ("Never", "OnFailure") and job["completionMode"] == "Indexed"
    topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    chips = math.prod(map(int, topology.split("x")))
    hosts = chips // container["resources"]["limits"]["google.com/tpu"]
    assert job["parallelism"] == job["completions"] == hosts
    assert f"--config.mesh.fsdp={chips}" in container["args"]
    (refused,) = job["podFailurePolicy"]["rules"]
    assert refused["onExitCodes"]["containerName"] == container["name"]
