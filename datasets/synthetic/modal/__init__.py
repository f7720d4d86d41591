"""The synthetic vehicles in other modalities: as infrared photographs, sketches and coloured pencil drawings."""
