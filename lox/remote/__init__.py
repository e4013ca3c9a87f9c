"""What `lox` asks of a server: agents, jobs, runs and restores of many hosts."""
