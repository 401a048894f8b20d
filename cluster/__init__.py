"""`dvc repro` side by side: DVC decides what has to run, Ray decides where, DVC's run cache carries the results.

`make repro JOBS=8` runs stages on this machine, `make repro ADDRESS=...` on a running Ray cluster.

- `pipeline` asks DVC what is out of date, and takes finished stages into the workspace without executing them;
- `runs` moves single entries of the run cache from and to a remote;
- `scheduler` hands on every stage as soon as what it needs is there, and knows nothing of DVC or Ray;
- `workers` runs stages as Ray tasks, or in this workspace what all others wait for; `agent` is the process beside each
  Ray worker in which DVC runs them, in a workspace of its own, which `workspace` makes;
- `display` is the live table.
"""
