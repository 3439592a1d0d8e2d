"""What an operator sees over HTTP: metrics, health and the status page. Imported only when a port is configured."""
