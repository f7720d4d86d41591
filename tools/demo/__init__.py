"""A page on this machine to play with a trained model: drop an image or type a sentence, see the ranked gallery.

`python -m tools.demo`. Nothing here but `page` needs gradio, and only the started command imports that.
"""
