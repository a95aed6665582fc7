"""An emulated Azure: Entra, ARM, Azure ML and Blob storage, for the real and unpatched clients.

How it hangs together, from the outside in:

- ``server`` is one port on loopback. A client reaches it as its HTTPS proxy, so that any host name below
  ``azure.test`` works without a name server and without touching ``/etc/hosts``. TLS ends there, with a
  certificate of ``certificates``.
- Each request is counted, may be interfered with (``faults``), and goes by its host to ``entra``, ``arm``
  (with ``models``), ``mlflow_front`` and ``history``, or ``storage`` (with ``copying``).
- MLflow is a real server and blobs are kept by the real Azurite, both started by ``processes``.
- A ``state.Scope`` is one customer: tenant, identities, subscription, workspace, storage accounts. Scopes
  share nothing, so tests run beside each other. The user name given to the proxy says which scope a request
  is for.
- ``control`` makes scopes and sets everything in them; ``client`` and ``fixtures`` are its Python side.

What is documented by Microsoft, what was reported by others, and what is assumed is listed in README.md.
"""
