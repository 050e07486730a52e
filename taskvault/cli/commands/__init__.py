"""One module per command, or per few that belong together; each is imported when its command is typed."""
