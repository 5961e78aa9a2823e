"""Commands from the bus: sorted, grouped, carried out in order."""
