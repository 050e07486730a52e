"""Checks a whole vault offline, and puts it right: index, counters, reachability and names from packs and trees."""
