"""One poller that feeds any number of workers through a broker. Imported only where ``[fleet] mode = broker``, but for
:mod:`muxer.status.fleet_status`, which needs nothing of it."""
