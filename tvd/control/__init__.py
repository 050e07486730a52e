"""The control socket: who may talk, what they may ask, and what ends with their connection."""
