"""Stands in for az, kubectl, make and osmo: records each call, and answers the requests of docs/aks.md."""

import json
import os
import sys
from pathlib import Path

ANSWERS = {
    "clientId": "11111111-1111-1111-1111-111111111111",
    "principalId": "22222222-2222-2222-2222-222222222222",
    "oidcIssuerProfile.issuerUrl": "https://oidc.example/issuer/",
    "properties.storageAccount": "/storage/of/the/workspace",
}
IMAGE = "acrrobots.azurecr.io/aml-mirror@sha256:" + "ab" * 32


def answer(program, arguments):
    if program == "make":
        return IMAGE
    query = arguments[arguments.index("--query") + 1] if "--query" in arguments else ""
    if query == "id":
        return {"account": "sub-1", "resource": "/the/workspace", "storage": "/the/runs"}[arguments[0]]
    return ANSWERS.get(query, "")


program, *given = sys.argv[1:]
stdin = sys.stdin.read() if {"-", "--stdin"} & set(given) else ""
with Path(os.environ["RECORD"]).open("a", encoding="utf-8") as record:
    record.write(json.dumps({"program": program, "arguments": given, "stdin": stdin}) + "\n")
print(answer(program, given))
