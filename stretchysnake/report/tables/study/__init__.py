"""Tables that the study alone fills: its further questions, budgets, the power to settle a claim."""
