"""One vault: what opens, commits to, accounts for and recovers a store on disk."""
