"""The program ``helm``: hands its command line to real Helm, which a test has loaded (real_helm.py)."""

import json
import os
import sys
import urllib.request

arguments = sys.argv[1:]
call = {"arguments": arguments, "standard_input": sys.stdin.read() if "-" in arguments else ""}
request = urllib.request.Request(os.environ["STUB_HELM_URL"] + "/helm", json.dumps(call).encode())
with urllib.request.urlopen(request) as response:
    done = json.load(response)
sys.stdout.write(done["out"])
sys.stderr.write(done["error"])
sys.exit(done["code"])
