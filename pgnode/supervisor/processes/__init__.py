"""Child processes of the node: started, watched, restarted, ended."""
