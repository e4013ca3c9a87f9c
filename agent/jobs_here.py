"""Jobs and their repositories as the policy that was last heard tells them, for commands on this host."""

from __future__ import annotations

from agent.host import place_of
from agent.repositories import Place
from agent.state import State
from model.errors import NotFound
from model.wire.policy import Policy, PolicyJob


def find_job(state: State, wanted: str) -> tuple[PolicyJob, Place]:
    """The job of this name or id, and where its data goes. Raises NotFound."""
    noted = state.note("policy")
    policy = None if noted is None else Policy.model_validate(noted)
    jobs = [] if policy is None else policy.jobs
    found = [job for job in jobs if wanted in (job.name, str(job.uuid))]
    if len(found) != 1 or policy is None:
        names = ", ".join(sorted(job.name for job in jobs)) or "none yet"
        why = "several jobs have this name" if found else "this agent has no such job"
        raise NotFound("which job?", subject=wanted, why=why, hint=f"write its id; there are: {names}")
    place = next((one for one in policy.repositories if one.uuid == found[0].repository_uuid), None)
    if place is None:
        raise NotFound("the policy has no such repository", subject=str(found[0].repository_uuid))
    return found[0], place_of(place)
