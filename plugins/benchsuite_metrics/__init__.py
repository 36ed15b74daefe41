"""First-party metric plugins."""
