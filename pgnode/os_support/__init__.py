"""What the node asks of the operating system and of asyncio: memory, parents that die, tasks that end."""
