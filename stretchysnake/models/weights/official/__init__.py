"""What official files of each architecture are called and shaped like, and how they fit a model of ours."""
