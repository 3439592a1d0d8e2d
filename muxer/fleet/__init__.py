"""A fleet: one poller distributes tasks to any number of workers through RabbitMQ (`[fleet] mode = broker`)."""
