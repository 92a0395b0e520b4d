"""The handlers of the routes, and the requests and responses that they share."""
