"""The warm process: everything loaded, it replays calls for the native launcher, which starts in a millisecond."""
