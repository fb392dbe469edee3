"""Names of the classes of public data sets, in the orders in which published classifiers number them."""
