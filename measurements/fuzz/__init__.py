"""Feed the parsers of what others write with damaged inputs, and see that they end only by their own errors."""
