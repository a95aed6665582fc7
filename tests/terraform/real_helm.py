"""Real Helm 4 (``helm-python-sdk``) on releases in memory, behind a program ``helm``.

Helm merges, renders, stores revisions and applies. Only its surroundings are emulated: an API server that
knows ConfigMaps, and the commands that the module's script uses, ``get values`` and ``upgrade``.
"""

import argparse
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import helm_python
import yaml
from mirror_world import CTRL, STUBS, install
from osmo_charts import LAYOUTS

CONFIG_MAP = "/api/v1/namespaces/{namespace}/configmaps/{name}"
# Enough of discovery for Helm to map a ConfigMap, and to leave checking its fields to the server.
DISCOVERY = {
    "/version": {"major": "1", "minor": "33", "gitVersion": "v1.33.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": {
        "kind": "APIResourceList",
        "groupVersion": "v1",
        "resources": [
            {"name": "configmaps", "singularName": "configmap", "namespaced": True, "kind": "ConfigMap",
             "verbs": ["create", "delete", "get", "list", "patch", "update"]}
        ],
    },
    "/openapi/v3": {"paths": {"api/v1": {"serverRelativeURL": "/openapi/v3/api/v1?hash=1"}}},
    "/openapi/v3/api/v1": {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.33.0"},
        "paths": {
            CONFIG_MAP: {
                "patch": {
                    "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
                    "x-kubernetes-group-version-kind": {"group": "", "version": "v1", "kind": "ConfigMap"},
                    "responses": {},
                }
            }
        },
    },
}  # fmt: skip


def merge(folder, defaults, *files):
    """What Helm makes of a chart's defaults and the files of ``-f``, in their order."""
    values = defaults
    for number, given in enumerate(files):
        chart = folder / f"merge-{number}"
        chart.mkdir(parents=True, exist_ok=True)
        (chart / "Chart.yaml").write_text("apiVersion: v2\nname: merge\nversion: 1.0.0\n")
        # Escapes for half a character are JSON and no YAML.
        (chart / "values.yaml").write_text(json.dumps(values, ensure_ascii=False))
        text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
        with helm_python.Chart.load(chart) as loaded:
            values = loaded.merge_values(helm_python.values_from_yaml(text))
    return values


def rendered(chart, values):
    """The pod templates that OSMO would read. None if the chart creates no configuration."""
    with helm_python.Chart.load(chart) as loaded:
        manifests = loaded.render(values, name="osmo", namespace="osmo-control-plane")
    return templates_of("\n---\n".join(manifests.values()))


def templates_of(manifest):
    for document in yaml.safe_load_all(manifest):
        if document and document["metadata"]["name"] == "osmo-configs":
            return (yaml.safe_load(document["data"]["config.yaml"]) or {}).get("pod_templates")
    return None


class Failed(Exception):
    """The error that the command line would end with."""


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise Failed(message)


class Helm:
    """The releases behind the program, for a test."""

    def __init__(self, folder, env, layout=LAYOUTS["6.3", "service 1.3"]):
        self.layout = layout
        self.chart = layout.write(folder.parent / "charts")
        self.lock = threading.Lock()
        self.configs = {}  # namespace -> Helm's configuration, with its releases in memory
        self.config_maps = {}
        self.histories, self.sequence = {}, []
        self.refusal = ""  # what the API server says instead of taking a change
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(self))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        env["STUB_HELM_URL"] = self.url
        self.program = install(folder, "helm", STUBS / "helm_client.py")
        self.release()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        for config in self.configs.values():
            config.close()

    def config(self, namespace):
        if namespace not in self.configs:
            self.configs[namespace] = helm_python.Config(
                kube_apiserver=self.url, namespace=namespace, storage_driver="memory"
            )
        return self.configs[namespace]

    def release(self, key="osmo-control-plane/osmo", values=None):
        """Installs OSMO, with its configuration in Helm values unless the values say otherwise."""
        namespace, _, name = key.partition("/")
        if values is None:
            values = self.layout.values({"default_ctrl": CTRL}, enabled=True)
            values["postgres"] = {"password": "hunter2"}
        with helm_python.Chart.load(self.chart) as chart:
            self.config(namespace).install(chart, name, values, namespace=namespace)
        self.histories[key] = []

    def uninstall(self, key="osmo-control-plane/osmo"):
        namespace, _, name = key.partition("/")
        self.config(namespace).uninstall(name)

    def values(self, key="osmo-control-plane/osmo", everything=True):
        namespace, _, name = key.partition("/")
        return self.config(namespace).get_values(name, all_values=everything)

    def history(self, key="osmo-control-plane/osmo"):
        """The pod templates that OSMO reads after each upgrade."""
        return self.histories[key]

    def run(self, arguments, standard_input):
        """The command line: exit code, standard output, standard error."""
        try:
            with self.lock:
                return 0, self.call(arguments, standard_input), ""
        except Failed as error:
            return 1, "", f"Error: {error}\n"

    def call(self, arguments, standard_input):
        parser = Parser(prog="helm")
        commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
        get = commands.add_parser("get").add_subparsers(required=True).add_parser("values")
        get.add_argument("--all", action="store_true")
        get.add_argument("--output", "-o", choices=("json",), required=True)
        upgrade = commands.add_parser("upgrade")
        upgrade.add_argument("--values", "-f", choices=("-",), required=True)
        upgrade.add_argument("--set")
        upgrade.add_argument("--version")
        reuse = upgrade.add_mutually_exclusive_group(required=True)
        reuse.add_argument("--reuse-values", action="store_true")
        reuse.add_argument("--reset-then-reuse-values", action="store_true")
        for one in (get, upgrade):
            one.add_argument("release")
            one.add_argument("--namespace", "-n", default="default")
        upgrade.add_argument("chart")
        options = parser.parse_args(arguments)
        key = f"{options.namespace}/{options.release}"
        try:
            if options.command == "get":
                return json.dumps(self.values(key, options.all)) + "\n"
            return self.upgrade(key, options, standard_input)
        except helm_python.HelmNotFoundError as error:
            raise Failed(error) from error
        except helm_python.HelmError as error:
            raise Failed(f"UPGRADE FAILED: {error}") from error

    def upgrade(self, key, options, standard_input):
        if options.chart != self.layout.reference:
            raise Failed(f'chart "{options.chart}" not found')
        if options.version != self.layout.version:
            raise Failed(f"{options.version} is not the version that is installed")
        values = helm_python.values_from_yaml(standard_input)
        if options.set:
            path, _, value = options.set.partition("=")
            assert value == "null", options.set
            *parents, last = path.split(".")
            place = values
            for name in parents:
                place = place.setdefault(name, {})
            place[last] = None
        with helm_python.Chart.load(self.chart) as chart:
            # The library's own call has no argument for --reset-then-reuse-values; the one below it does.
            native, config = helm_python._native, self.config(options.namespace)
            answer = native.call_string(
                "helm_upgrade",
                config._raw(),
                native.HANDLE(0),
                chart._raw(),
                None,
                options.release,
                json.dumps(values),
                json.dumps(
                    {
                        "namespace": options.namespace,
                        "reuse_values": options.reuse_values,
                        "reset_then_reuse_values": options.reset_then_reuse_values,
                    }
                ),
            )
        self.histories[key].append(templates_of(json.loads(answer)["manifest"]))
        self.sequence.append(key)
        return "Release upgraded. NOTES: the admin password is hunter2\n"


def handler_of(helm):
    """The API server, and the other end of the program."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_):
            """Log nothing."""

        def answer(self, value, code=200):
            body = json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def refuse(self, code, reason, message):
            status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}
            self.answer(status | {"reason": reason, "message": message, "details": {}}, code)

        def body(self):
            return json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "null")

        def do_GET(self):
            path = urlsplit(self.path).path
            if path in DISCOVERY:
                self.answer(DISCOVERY[path])
            elif path in helm.config_maps:
                self.answer(helm.config_maps[path])
            else:
                self.refuse(404, "NotFound", f"{path} not found")

        def do_POST(self):
            if self.path != "/helm":
                return self.refuse(405, "MethodNotAllowed", self.path)
            code, out, error = helm.run(**self.body())
            return self.answer({"code": code, "out": out, "error": error})

        def do_PATCH(self):
            path, applied = urlsplit(self.path).path, self.body()
            if not re.fullmatch(r"/api/v1/namespaces/[^/]+/configmaps/[^/]+", path):
                return self.refuse(404, "NotFound", f"{path} not found")
            if helm.refusal:
                return self.refuse(403, "Forbidden", helm.refusal)
            helm.config_maps[path] = applied
            return self.answer(applied)

        def do_DELETE(self):
            self.body()
            self.answer(helm.config_maps.pop(urlsplit(self.path).path, {}))

    return Handler
