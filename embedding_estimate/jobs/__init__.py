"""One job at a time, in a thread of its own, for the tab and the API."""
