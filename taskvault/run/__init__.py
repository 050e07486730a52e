"""Run a command, or replay what the same command did before; everything here happens in the client."""
