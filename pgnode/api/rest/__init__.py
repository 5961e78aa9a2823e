"""The node over REST: the pipeline that every request passes, the applications behind it, and the log stream."""
