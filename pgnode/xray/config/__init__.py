"""The core's JSON config: reading, checking, rewriting, comparing, and the accounts of its inbounds."""
