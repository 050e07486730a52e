"""The mount beside an ordinary filesystem, a passthrough in C, and the other filesystem on the same Python stack."""
