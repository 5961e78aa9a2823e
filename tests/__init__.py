"""The tests: folders mirror pgnode/, e2e plays panel and users against whole nodes, support holds what they share."""
