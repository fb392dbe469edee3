"""Every experiment of the paper on MotionDigits: design, cost, run, pages."""
