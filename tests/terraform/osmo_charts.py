"""Charts in the shape of OSMO's: where each version keeps its pod templates, and when OSMO reads them.

Facts from NVIDIA/OSMO: ``deployments/charts/service`` at 6.2.10 (chart 1.2.1), 6.3.0 (1.3.0), 6.3.1 (1.3.1)
and on main of August 2026 (1.4.0); ``deployments/charts/osmo`` there (0.1.0); ``templates/configs.yaml`` in
both. The last layout is what its upgrade guide from 6.3 to 6.4 and pull request #1361 say of later charts: no
``configuration.enabled``, and a ``configuration.snapshot`` that replaces all other values.
"""

import json
from dataclasses import dataclass

from mirror_world import STOCK

# What the charts bring: the control container without an identity, and the stock user container.
DEFAULTS = {"default_ctrl": {"spec": {"containers": [{"name": "osmo-ctrl"}]}}, "default_user": STOCK}

CONFIG_MAP = """apiVersion: v1
kind: ConfigMap
metadata:
  name: osmo-configs
data:
  config.yaml: |
    {{- with .Values.PATH }}
    pod_templates:
      {{- toYaml . | nindent 6 }}
    {{- end }}
"""
WITH_SNAPSHOT = """apiVersion: v1
kind: ConfigMap
metadata:
  name: osmo-configs
data:
  config.yaml: |
    {{- if kindIs "invalid" .Values.configuration.snapshot }}
    pod_templates:
      {{- toYaml .Values.configuration.podTemplates | nindent 6 }}
    {{- else }}
    {{- toYaml .Values.configuration.snapshot | nindent 4 }}
    {{- end }}
"""
NO_CONFIGURATION = (
    "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: osmo-other\ndata:\n  replicas: '{{ .Values.n }}'\n"
)


@dataclass(frozen=True)
class Layout:
    """One row of the table in terraform/README.md.

    Attributes:
        path: where the chart keeps pod templates; "" where it keeps none.
        switch: the value that makes OSMO read them; "" where they are always read.
    """

    name: str
    version: str
    path: str = ""
    switch: str = ""

    @property
    def reference(self):
        return f"osmo/{self.name}"

    def values(self, templates, **beside):
        """Values of a release with these pod templates and the other given values."""
        return nest(self.path, {**beside, "podTemplates": templates}) if self.path else {"n": 1}

    def defaults(self):
        if not self.path:
            return {"n": 1}
        beside = {"enabled": False} if self.switch else {"snapshot": None}
        return self.values(DEFAULTS, **beside)

    def template(self):
        if not self.path:
            return NO_CONFIGURATION
        if not self.switch:
            return WITH_SNAPSHOT
        body = CONFIG_MAP.replace("PATH", self.path)
        return f"{{{{- if .Values.{self.switch} }}}}\n{body}{{{{- end }}}}\n"

    def write(self, folder):
        """Write the chart into a folder, and return its path."""
        chart = folder / f"{self.name}-{self.version}"
        (chart / "templates").mkdir(parents=True)
        head = {"apiVersion": "v2", "name": self.name, "version": self.version}
        (chart / "Chart.yaml").write_text(json.dumps(head))
        (chart / "values.yaml").write_text(json.dumps(self.defaults()))
        (chart / "templates" / "configs.yaml").write_text(self.template())
        return chart


def nest(path, configuration):
    """Values whose configuration is at the map that holds the last key of the path."""
    for key in reversed(path.split(".")[:-1]):
        configuration = {key: configuration}
    return configuration


SERVICE = "services.configs.podTemplates"
UMBRELLA = "configuration.podTemplates"
LAYOUTS = {
    ("6.2", "service 1.2"): Layout("service", "1.2.1"),
    ("6.3", "service 1.3"): Layout("service", "1.3.1", SERVICE, "services.configs.enabled"),
    ("6.4", "service 1.4"): Layout("service", "1.4.0", SERVICE, "services.configs.enabled"),
    ("6.4", "osmo 0.1"): Layout("osmo", "0.1.0", UMBRELLA, "configuration.enabled"),
    ("6.4", "osmo, later"): Layout("osmo", "0.2.0", UMBRELLA),
}

# A typical template of operators, and the values of a release with it.
OWN = {
    "metadata": {"labels": {"team": "robots"}, "annotations": {"a": "{{WF_ID}}"}},
    "spec": {
        "volumes": [{"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": "{{USER_SHM_SIZE}}"}}],
        "initContainers": [{"name": "init", "image": "busybox"}],
        "containers": [
            {
                "name": "{{USER_CONTAINER_NAME}}",
                "env": [{"name": "MINE", "value": "1"}],
                "resources": {"limits": {"cpu": "{{USER_CPU}}"}},
                "volumeMounts": [{"name": "dshm", "mountPath": "/dev/shm"}],
            },
            {
                "name": "sidecar",
                "image": "log:1",
                "env": [{"name": "AZURE_RESOURCE_GROUP", "value": "its-own"}],
            },
        ],
    },
}


def values_with(template, **others):
    values = LAYOUTS["6.3", "service 1.3"].values({"default_user": template} | others, enabled=True)
    values["services"]["ui"] = {"replicas": 2}
    return values
