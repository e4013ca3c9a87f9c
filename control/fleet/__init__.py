"""Agents: registration, enrolment, heartbeats, commands, and the streams they answer with."""
