"""The teacher service: worlds that imagine what a camera would see after an action."""
