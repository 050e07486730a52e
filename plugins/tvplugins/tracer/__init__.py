"""The built-in tracers: one through strace, one of our own, and what turns their records into an observation."""
