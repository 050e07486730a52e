"""One TaskVault plugin of each kind."""
