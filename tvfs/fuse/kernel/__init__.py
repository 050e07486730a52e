"""The kernel's FUSE protocol, spoken directly: bytes in, bytes out, on one trio task; no libfuse."""
