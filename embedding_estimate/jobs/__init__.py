"""An estimate that is saved, for every interface; one job at a time in a thread, for the tab and the API."""
