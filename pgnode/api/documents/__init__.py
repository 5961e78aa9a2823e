"""Documents made from the table of methods: docs/api.md and docs/openapi.json. Pure; ``make docs`` writes them."""
