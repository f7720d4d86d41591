"""Drawing of synthetic VeRi: vehicles as meshes (`shapes`, `looks`, `vehicles`), photographed by `scenes`."""
