"""The report of a finished run: one page that needs nothing else, for people who look before they read."""
