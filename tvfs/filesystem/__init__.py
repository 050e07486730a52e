"""Names and files upon a vault: what POSIX means, without a kernel."""
