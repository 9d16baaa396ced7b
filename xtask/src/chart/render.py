"""Helm itself, by its Python binding: a request of JSON on stdin, the answer as JSON on stdout.

Request: {"chart": folder, "release": name, "namespace": name,
          "cases": [{"files": [YAML text], "set": ["k=v"]}]}
Answer:  {"helm": version, "crds": {file: text},
          "cases": [{"lint": [text], "files": {template: text}} or {"error": text}]}
"""

import json
import sys

import helm_python as helm


def merged(below, above):
    """As Helm: maps are merged, anything else is replaced, null takes a key away."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    both = dict(below)
    for key, value in above.items():
        both[key] = merged(both.get(key), value)
    return both


def rendered(chart, request, case):
    values = {}
    for text in case["files"]:
        values = merged(values, helm.values_from_yaml(text) or {})
    for text in case["set"]:
        values = merged(values, helm.parse_set_string(text))
    # The schema is for what a release would use, so for the defaults and these values together.
    chart.validate_schema(chart.merge_values(values))
    report = helm.lint(request["chart"], values, strict=True, namespace=request["namespace"])
    files = chart.render(
        values, name=request["release"], namespace=request["namespace"], is_install=True
    )
    lint = [f"{m['path']}: {m['error']}" for m in report["messages"] if m["severity"] >= 2]
    return {"lint": lint, "files": files}


def main():
    request = json.load(sys.stdin)
    cases = []
    with helm.Chart.load(request["chart"]) as chart:
        crds = {crd["filename"]: crd["data"] for crd in chart.crds}
        for case in request["cases"]:
            try:
                cases.append(rendered(chart, request, case))
            except helm.HelmError as error:
                cases.append({"error": str(error)})
    json.dump({"helm": helm.helm_sdk_version(), "crds": crds, "cases": cases}, sys.stdout)


main()
