"""The Kubernetes manifests, read as data: what must hold of them beyond their schema, and their form for podman, which
knows neither native sidecars nor images of a registry that it cannot reach."""

import sys

import yaml


def main():
    command, *arguments = sys.argv[1:]
    {"check": check, "file": file, "play": play}[command](*arguments)


def check(*paths):
    """check FILE…: every container is locked down and probed, and the names in each file fit one another."""
    faults = []
    for path in paths:
        documents = load(path)
        faults += [f"{path}: {fault}" for fault in misfits(documents)]
        for document in documents:
            if document["kind"] == "Deployment":
                faults += [f"{path}: {fault}" for fault in weaknesses(document["spec"]["template"]["spec"])]
        print(path, ", ".join(document["kind"] for document in documents))
    sys.exit("\n".join(faults) or 0)


def file(path, name):
    """file FILE NAME: a file of the manifest's ConfigMap."""
    for document in load(path):
        if document["kind"] == "ConfigMap":
            print(document["data"][name], end="")


def play(path, dovecot):
    """play FILE DIRECTORY: the manifest for `podman kube play`, with a Dovecot configured by DIRECTORY for an upstream."""
    documents = load(path)
    for document in documents:
        if document["kind"] == "ConfigMap":
            text = document["data"]["popgate.toml"]
            document["data"]["popgate.toml"] = replace(text, "imaps://imap.example.com", "imap://127.0.0.1:143")
        if document["kind"] == "Secret":
            text = replace(document.pop("stringData")["curlrc"], "alice@example.com:change me", "alice:wonderland")
            # Of Secrets each version of podman makes something else; the mounted file is the same.
            document.update(kind="ConfigMap", data={"curlrc": text})
            del document["type"]
        if document["kind"] == "Deployment":
            pod = document["spec"]["template"]["spec"]
            pod["containers"] = pod.pop("initContainers") + pod["containers"]
            for container in pod["containers"]:
                container.pop("startupProbe", None)
                # podman would run it by a shell, which the image has not.
                container.pop("livenessProbe", None)
                container["image"] = "localhost/popgate" if container["name"] == "popgate" else "localhost/debian"
                container["imagePullPolicy"] = "Never"
                container["args"] = [replace(text, "sleep 60", "sleep 1") for text in container.get("args", [])]
            for volume in pod["volumes"]:
                if "secret" in volume:
                    volume["configMap"] = {"name": volume.pop("secret")["secretName"]}
            add_dovecot(pod, dovecot)
    print(yaml.safe_dump_all(documents))


def add_dovecot(pod, directory):
    mounts = []
    for name in ["dovecot.conf", "users"]:
        volume = name.replace(".", "-")
        pod["volumes"].append({"name": volume, "hostPath": {"path": f"{directory}/{name}", "type": "File"}})
        mounts.append({"name": volume, "mountPath": f"/etc/dovecot/{name}", "readOnly": True})
    pod["containers"].append(
        {
            "name": "dovecot",
            "image": "localhost/debian",
            "imagePullPolicy": "Never",
            "command": ["/usr/sbin/dovecot", "-F"],
            "securityContext": {"runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": False},
            "volumeMounts": mounts,
        }
    )


def weaknesses(pod):
    """What of the "restricted" Pod Security Standard a pod lacks, and what popgate needs besides."""
    context = pod["securityContext"]
    if not (context["runAsNonRoot"] and context["runAsUser"] == 65532):
        yield "runs as root"
    if context["seccompProfile"] != {"type": "RuntimeDefault"}:
        yield "no seccomp profile"
    if pod["automountServiceAccountToken"] or pod["enableServiceLinks"]:
        yield "gets a token or variables that it does not need"
    if pod["terminationGracePeriodSeconds"] <= 25:
        yield "is killed before its sessions had their time"
    for container in pod.get("initContainers", []) + pod["containers"]:
        name, context = container["name"], container["securityContext"]
        wanted = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
        if context != wanted:
            yield f"{name}: securityContext is not {wanted}"
        if not ({"cpu", "memory"} <= set(container["resources"]["requests"]) and container["resources"]["limits"]):
            yield f"{name}: no resources"
        if name == "popgate":
            for probe, path in [("startupProbe", "/readyz"), ("livenessProbe", "/healthz")]:
                inside = {"exec": {"command": ["/popgate", "probe", f"http://127.0.0.1:9110{path}"]}}
                outside = {"httpGet": {"path": path, "port": "admin"}}
                if inside.items() <= container[probe].items():
                    continue
                if not outside.items() <= container[probe].items():
                    yield f"{name}: {probe}"
    for container in pod.get("initContainers", []):
        if container.get("restartPolicy") != "Always":
            yield f"{container['name']}: no native sidecar"


def misfits(documents):
    """Names that refer to nothing."""
    of = {kind: [d for d in documents if d["kind"] == kind] for kind in {d["kind"] for d in documents}}
    names = {(d["kind"], d["metadata"]["name"]) for d in documents}
    deployment = of["Deployment"][0]["spec"]
    labels, pod = deployment["template"]["metadata"]["labels"], deployment["template"]["spec"]
    selectors = [deployment["selector"]["matchLabels"]]
    selectors += [service["spec"]["selector"] for service in of.get("Service", [])]
    selectors += [budget["spec"]["selector"]["matchLabels"] for budget in of.get("PodDisruptionBudget", [])]
    if any(selector != labels for selector in selectors):
        yield "a selector does not select the pods"
    for volume in pod["volumes"]:
        if "configMap" in volume and ("ConfigMap", volume["configMap"]["name"]) not in names:
            yield f"no ConfigMap {volume['configMap']['name']}"
    volumes = {volume["name"] for volume in pod["volumes"]}
    containers = pod.get("initContainers", []) + pod["containers"]
    if volumes != {mount["name"] for container in containers for mount in container["volumeMounts"]}:
        yield "volumes and mounts differ"
    ports = {port["name"] for container in containers for port in container.get("ports", [])}
    if any(port["targetPort"] not in ports for service in of.get("Service", []) for port in service["spec"]["ports"]):
        yield "the Service names a port that no container has"


def replace(text, old, new):
    """What is replaced must be there, or the test would no longer test the manifest."""
    assert old in text, f"{old!r} is not in {text!r}"
    return text.replace(old, new)


def load(path):
    with open(path, encoding="utf-8") as text:
        return list(yaml.safe_load_all(text))


if __name__ == "__main__":
    main()
