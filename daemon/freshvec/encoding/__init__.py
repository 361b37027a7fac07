"""From text to vector, on a device."""
