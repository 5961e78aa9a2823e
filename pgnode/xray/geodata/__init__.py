"""Files of geo data."""
