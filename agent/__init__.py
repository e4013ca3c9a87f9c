"""The daemon on a host: configuration, enrolment, heartbeat, schedule, runs, hooks, metrics."""
