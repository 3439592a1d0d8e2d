"""One poller that feeds any number of workers through RabbitMQ; loaded only where ``[fleet] mode = broker``."""
