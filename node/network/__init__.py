"""The network edges on pynetdicom: hardened server, requestor, presentation contexts, TLS, status names; no store."""
