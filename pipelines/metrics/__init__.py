"""What Prometheus is told of runs: `catalog` names everything, `values` holds it, `run` fills it in while something
runs; `endpoint` and `textfile` give it away."""
