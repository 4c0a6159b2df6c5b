"""Every figure in one report."""
