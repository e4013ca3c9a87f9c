"""The layer under all routes: validation, permission, problems, idempotency, limits, and the OpenAPI document."""
