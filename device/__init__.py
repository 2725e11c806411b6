"""The nanotox station: camera, counting, classification, verdicts, MQTT."""
