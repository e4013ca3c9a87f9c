"""Who asks, and what they may: tenants, people, tokens, sessions, roles."""
