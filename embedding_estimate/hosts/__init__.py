"""Who lends a loaded model: each host implements `model.host.Host`."""
