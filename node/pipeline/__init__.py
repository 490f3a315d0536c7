"""One job as a function from files to a derived series; no storage, no settings, no network."""
