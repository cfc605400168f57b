"""The workers there are: by the stack, by the clouds, by the preview of a change."""
