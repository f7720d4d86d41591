"""Drawing of the synthetic persons: figures of polygons (looks, figure), photographed in places by photos."""
