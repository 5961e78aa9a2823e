"""The core as a process: start, check, trial, take over, end."""
