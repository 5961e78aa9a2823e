"""The node's figures, gathered in one place: for metrics, health, and the operator's commands."""
