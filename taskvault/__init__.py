"""What people import and type: the SDK, the client and the command line."""
