"""What the node asks of the operating system and of Python: memory, files, processes, tasks, versions; knows of no node."""
