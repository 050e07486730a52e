"""What clients and the owner say to each other, and how it lies on the socket."""
