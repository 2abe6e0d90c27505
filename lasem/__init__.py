"""lasem."""
