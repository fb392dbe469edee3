"""The paper's Table 2: fourteen published systems and StretchySnake, measured here and set beside what it prints."""
