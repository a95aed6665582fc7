"""An emulated Azure: Entra, ARM, Azure ML and Blob storage, for the real and unpatched clients.

Structure, from the outside in:

- ``server`` is one port on loopback. A client uses it as its HTTPS proxy, so any host name below
  ``azure.test`` works without a name server and without ``/etc/hosts``. It terminates TLS, with a certificate
  from ``certificates``.
- Each request is counted, may be disturbed (``faults``), and is passed by its host to ``entra``, ``arm``
  (with ``models``), ``mlflow_front`` and ``history``, or ``storage`` (with ``copying``).
- MLflow is a real server and blobs are stored by the real Azurite, both started by ``processes``.
- A ``state.Scope`` is one customer: tenant, identities, subscription, workspace, storage accounts. Scopes
  share nothing, so tests can run in parallel. The user name given to the proxy says which scope a request is
  for.
- ``control`` makes scopes and sets everything in them; ``client`` and ``fixtures`` are its Python side.

README.md lists what Microsoft documents, what others reported, and what is assumed.
"""
